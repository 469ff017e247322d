package unifiedcheckout

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
)

const (
	reversalsOf76 = "POST /pts/v2/payments/76/reversals"
	voidsOf76     = "POST /pts/v2/payments/76/voids"
	voidsOf79     = "POST /pts/v2/captures/79/voids"
	capturesOf76  = "POST /pts/v2/payments/76/captures"
	refundsOf76   = "POST /pts/v2/payments/76/refunds"
	refundsOf79   = "POST /pts/v2/captures/79/refunds"
)

func refusal(reason string, fields ...string) scripted {
	var details []string
	for _, f := range fields {
		details = append(details, `{"field":"`+f+`","reason":"`+reason+`"}`)
	}
	return scripted{http.StatusBadRequest, `{"status":"INVALID_REQUEST","reason":"` + reason + `","details":[` + strings.Join(details, ",") + `]}`}
}

func created(status string) scripted {
	return scripted{http.StatusCreated, `{"id":"77","status":"` + status + `","reconciliationId":"R77"}`}
}

// of gives a row another reference, and an amount.
func of(code, amount, row string) string {
	return strings.NewReplacer("pr_07abc-1", code, "149.00", amount).Replace(row)
}

func TestOperationsThatAreAnsweredOddly(t *testing.T) {
	t.Parallel()
	auth := row("76", "100", "", "ics_auth 1")
	sale := row("76", "100", "", "ics_auth 1", "ics_bill 1")
	review := row("76", "480", `,"processorInformation":{"approvalCode":"831000"}`, "ics_auth 1", "ics_decision 0")
	const (
		done, gone, later, open           = conversations.OperationSucceeded, conversations.OperationFailed, conversations.OperationPending, conversations.OperationUnsettled
		reversal, void, capture, refund   = conversations.OperationReversal, conversations.OperationVoid, conversations.OperationCapture, conversations.OperationRefund
		authorized, taken, partial, risky = conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomePartial, conversations.OutcomeRiskDeclined
		reviewed                          = conversations.OutcomeInReview
		either                            = "TRANSACTION_ALREADY_REVERSED_OR_SETTLED"
	)
	type answers = map[string]scripted
	for _, tt := range []struct {
		name    string
		kind    conversations.OperationKind
		outcome conversations.Outcome
		sale    bool   // asked for at once, whatever became of it
		of      string // the transaction it acts on; empty: the payment
		old     bool   // the search has had time
		unknown bool   // an earlier call was not answered
		answers answers
		want    conversations.OperationState
		reason  string
		id      string
		calls   string // those that move money, and details
	}{
		{name: "reversed", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: created("REVERSED")}, want: done, id: "77", calls: reversalsOf76},
		{name: "reversed by a new status", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: created("REVERSING")}, want: open, reason: "REVERSING", calls: reversalsOf76},
		{name: "already reversed", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal("AUTH_ALREADY_REVERSED")}, want: done},
		{name: "reversed or settled, never captured", kind: reversal, outcome: risky, answers: answers{reversalsOf76: refusal(either)}, want: done},
		{name: "reversed or settled, of a part", kind: reversal, outcome: partial, answers: answers{reversalsOf76: refusal(either)}, want: done},
		{name: "reversed or settled, was under review", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal(either), searches: found(sale)}, want: open, reason: either},
		{name: "reversed or settled, found as ours", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal(either), searches: found(auth, of("op-reversal-1", "149.00", row("78", "100", "", "ics_auth_reversal 1")))}, want: done, id: "78"},
		{name: "reversed or settled, found as somebody's", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal(either), searches: found(auth, row("78", "100", "", "ics_auth_reversal 1"))}, want: done, id: "78"},
		{name: "reversed or settled, not found yet", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal(either), searches: found(auth)}, want: open, reason: either},
		{name: "reversed or settled, never found", kind: reversal, outcome: authorized, old: true, answers: answers{reversalsOf76: refusal(either), searches: found(auth)}, want: gone, reason: either},
		{name: "reversed or settled, search out of order", kind: reversal, outcome: authorized, old: true, answers: answers{reversalsOf76: refusal(either), searches: {500, "{}"}}, want: open, reason: either},
		{name: "reversal of another amount refused", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal("INVALID_AMOUNT")}, want: gone, reason: "INVALID_AMOUNT"},
		{name: "reversal whose amount is invalid", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal("INVALID_DATA", "reversalInformation.amountDetails.totalAmount")}, want: gone, reason: "INVALID_DATA", calls: reversalsOf76},
		{name: "no such payment", kind: reversal, outcome: authorized, want: gone, reason: "HTTP_404"},
		{name: "reversal without an answer of use", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: {502, `{"id":"78","status":"SERVER_ERROR","reason":"SYSTEM_ERROR"}`}}, want: open, reason: "SYSTEM_ERROR"},
		{name: "reversal answered about another", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: {201, `{"id":"77","status":"REVERSED","clientReferenceInformation":{"code":"op-other"}}`}}, want: open, reason: reasonOtherPayment},
		{name: "reversal answered for another amount", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: {201, `{"id":"77","status":"REVERSED","reversalAmountDetails":{"reversedAmount":"1.00","currency":"ZAR"}}`}}, want: open, reason: reasonAmountDiffers},

		{name: "under review", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(review)}, want: later, reason: conversations.ErrorUnderReview},
		{name: "under review, search out of order", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: {500, "{}"}}, want: later, reason: conversations.ErrorUnderReview},
		{name: "under review, not visible", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found()}, want: later, reason: conversations.ErrorUnderReview},
		{name: "under review, and we did not know", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(review)}, want: later, reason: conversations.ErrorUnderReview},
		{name: "was under review, rejected and given back", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(review, row("78", "100", "", "ics_auth_reversal 1"))}, want: done},
		{name: "was under review, and is refused for something else", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(auth)}, want: gone, reason: "INVALID_DATA"},
		{name: "was under review before it was authorized, and rejected", kind: reversal, outcome: reviewed, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(row("76", "481", "", "ics_auth 0"))}, want: done},
		{name: "was under review, accepted and taken", kind: reversal, outcome: reviewed, sale: true, answers: answers{reversalsOf76: refusal(either), searches: found(sale), voidsOf76: created("VOIDED")}, want: done, id: "77", calls: reversalsOf76 + " " + voidsOf76 + " " + reversalsOf76},
		{name: "was under review, accepted and taken, and refused by a general word", kind: reversal, outcome: reviewed, sale: true, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(sale), voidsOf76: created("VOIDED")}, want: done, id: "77"},
		{name: "was under review, accepted, taken and settled", kind: reversal, outcome: reviewed, sale: true, answers: answers{reversalsOf76: refusal("TRANSACTION_ALREADY_SETTLED"), searches: found(sale), voidsOf76: refusal("NOT_VOIDABLE")}, want: gone, reason: conversations.ErrorSettled},
		{name: "not under review, as far as known, search out of order", kind: reversal, outcome: authorized, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: {500, "{}"}}, want: later, reason: "INVALID_DATA"},

		{name: "voided, hold released", kind: void, outcome: taken, answers: answers{voidsOf76: created("VOIDED"), reversalsOf76: created("REVERSED")}, want: done, id: "77", calls: voidsOf76 + " " + reversalsOf76},
		{name: "voided, hold cannot be released", kind: void, outcome: taken, answers: answers{voidsOf76: created("VOIDED"), reversalsOf76: refusal("NOT_SUPPORTED")}, want: done, id: "77"},
		{name: "voided, release not answered", kind: void, outcome: taken, answers: answers{voidsOf76: created("VOIDED"), reversalsOf76: {502, "{}"}}, want: done, id: "77"},
		{name: "a sale is voided, whatever the kind", kind: reversal, outcome: taken, answers: answers{voidsOf76: created("VOIDED")}, want: done, id: "77", calls: voidsOf76 + " " + reversalsOf76},
		{name: "a capture is voided", kind: void, outcome: authorized, of: "79", answers: answers{voidsOf79: created("VOIDED"), reversalsOf76: created("REVERSED")}, want: done, id: "77", calls: voidsOf79 + " " + reversalsOf76},
		{name: "an authorization cannot be voided", kind: void, outcome: authorized, want: gone, reason: reasonNoPaymentID},
		{name: "void failed", kind: void, outcome: taken, answers: answers{voidsOf76: created("FAILED")}, want: gone, reason: "FAILED", calls: voidsOf76},
		{name: "not voidable, settled", kind: void, outcome: taken, old: true, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale)}, want: gone, reason: conversations.ErrorSettled},
		{name: "already settled", kind: void, outcome: taken, old: true, answers: answers{voidsOf76: refusal("TRANSACTION_ALREADY_SETTLED"), searches: found(sale)}, want: gone, reason: conversations.ErrorSettled},
		{name: "not voidable, and never asked before", kind: void, outcome: taken, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale)}, want: gone, reason: conversations.ErrorSettled},
		{name: "not voidable, and an earlier void may not show yet", kind: void, outcome: taken, unknown: true, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale)}, want: open, reason: "NOT_VOIDABLE"},
		{name: "not voidable, and an earlier void never shows", kind: void, outcome: taken, unknown: true, old: true, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale)}, want: gone, reason: conversations.ErrorSettled},
		{name: "unknown void, not let in", kind: void, outcome: taken, unknown: true, answers: answers{voidsOf76: {401, "{}"}}, want: open, reason: "HTTP_401"},
		{name: "void of unknown outcome, under review", kind: reversal, outcome: reviewed, unknown: true, answers: answers{reversalsOf76: refusal("INVALID_DATA", "id"), searches: found(review)}, want: later, reason: conversations.ErrorUnderReview},
		{name: "not voidable, search out of order", kind: void, outcome: taken, old: true, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: {500, "{}"}}, want: open, reason: "NOT_VOIDABLE"},
		{name: "not voidable, voided by us", kind: void, outcome: taken, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale, of("op-void-1", "149.00", row("78", "100", "", "ics_void 1")))}, want: done, id: "78"},
		{name: "not voidable, voided by somebody", kind: void, outcome: taken, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale, row("78", "100", "", "ics_void 1"))}, want: done, id: "78"},
		{name: "not voidable, and a refund of it was voided", kind: void, outcome: taken, old: true, answers: answers{voidsOf76: refusal("NOT_VOIDABLE"), searches: found(sale, row("77", "100", "", "ics_credit 1"), row("78", "100", "", "ics_void 1"))}, want: gone, reason: conversations.ErrorSettled},
		{name: "capture not voidable, voided by somebody", kind: void, outcome: authorized, of: "79", answers: answers{
			voidsOf79: refusal("NOT_VOIDABLE"), "GET /tss/v2/transactions/79": {200, of("op-c", "149.00", row("79", "100", "", "ics_bill 1"))},
			searches: found(of("op-c", "149.00", row("79", "100", "", "ics_bill 1")), of("op-c", "149.00", row("78", "100", "", "ics_void 1"))),
		}, want: done, id: "78"},
		{name: "capture not voidable, another was voided", kind: void, outcome: authorized, of: "79", old: true, answers: answers{
			voidsOf79: refusal("NOT_VOIDABLE"), "GET /tss/v2/transactions/79": {200, of("op-c", "149.00", row("79", "100", "", "ics_bill 1"))},
			searches: found(of("op-c", "149.00", row("79", "100", "", "ics_bill 1")), row("78", "100", "", "ics_void 1")),
		}, want: gone, reason: conversations.ErrorSettled},

		{name: "capture queued", kind: capture, outcome: authorized, answers: answers{capturesOf76: created("PENDING")}, want: done, id: "77", calls: capturesOf76},
		{name: "capture sent", kind: capture, outcome: authorized, answers: answers{capturesOf76: created("TRANSMITTED")}, want: done, id: "77"},
		{name: "capture while the processor is away", kind: capture, outcome: authorized, answers: answers{capturesOf76: refusal("PROCESSOR_UNAVAILABLE")}, want: later, reason: reasonProcessorAway},
		{name: "captured, and no id", kind: capture, outcome: authorized, answers: answers{capturesOf76: {201, `{"status":"PENDING"}`}}, want: open, reason: reasonNoID},
		{name: "captured for another amount", kind: capture, outcome: authorized, answers: answers{capturesOf76: {201, `{"id":"77","status":"PENDING","orderInformation":{"amountDetails":{"totalAmount":"1.00","currency":"ZAR"}}}`}}, want: open, reason: reasonAmountDiffers},
		{name: "capture beyond the hold", kind: capture, outcome: authorized, answers: answers{capturesOf76: refusal("EXCEEDS_AUTH_AMOUNT")}, want: gone, reason: "EXCEEDS_AUTH_AMOUNT"},
		{name: "capture after a reversal", kind: capture, outcome: authorized, answers: answers{capturesOf76: refusal("AUTH_ALREADY_REVERSED")}, want: gone, reason: "AUTH_ALREADY_REVERSED"},

		{name: "unknown capture, found", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found(of("op-capture-1", "149.00", row("78", "100", "", "ics_bill 1")))}, want: done, id: "78"},
		{name: "unknown capture, found refused", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found(of("op-capture-1", "149.00", row("78", "233", "", "ics_bill 0")))}, want: gone, reason: "GENERAL_DECLINE"},
		{name: "unknown capture, found twice", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found(of("op-capture-1", "149.00", row("80", "102", "", "ics_bill 0")), of("op-capture-1", "149.00", row("78", "100", "", "ics_bill 1")))}, want: done, id: "78"},
		{name: "unknown capture, found as an error", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found(of("op-capture-1", "149.00", row("78", "150", "", "ics_bill -1")))}, want: open, reason: reasonNotFoundYet},
		{name: "unknown capture, found for another amount", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found(of("op-capture-1", "1.00", row("78", "100", "", "ics_bill 1")))}, want: open, reason: reasonAmountDiffers},
		{name: "unknown capture, not found yet", kind: capture, outcome: authorized, unknown: true, answers: answers{searches: found()}, want: open, reason: reasonNotFoundYet},
		{name: "unknown capture, search out of order", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: {500, "{}"}}, want: open, reason: reasonNotFoundYet},
		{name: "unknown capture, never found, sent again", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: found(), capturesOf76: created("PENDING")}, want: done, id: "77", calls: capturesOf76},
		{name: "unknown capture, sent again, not let in", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: found(), capturesOf76: {401, "{}"}}, want: open, reason: "HTTP_401"},
		{name: "unknown capture, sent again, a duplicate", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: found(), capturesOf76: refusal("DUPLICATE_REQUEST")}, want: open, reason: "DUPLICATE_REQUEST"},
		{name: "unknown capture, sent again, too much now", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: found(), capturesOf76: refusal("EXCEEDS_AUTH_AMOUNT")}, want: open, reason: "EXCEEDS_AUTH_AMOUNT"},
		{name: "unknown capture, sent again, refused for itself", kind: capture, outcome: authorized, unknown: true, old: true, answers: answers{searches: found(), capturesOf76: refusal("INVALID_MERCHANT_CONFIGURATION")}, want: gone, reason: "INVALID_MERCHANT_CONFIGURATION"},

		{name: "refund queued", kind: refund, outcome: taken, answers: answers{refundsOf76: created("PENDING")}, want: done, id: "77", calls: refundsOf76},
		{name: "refund declined", kind: refund, outcome: taken, answers: answers{refundsOf76: created("DECLINED")}, want: gone, reason: "DECLINED"},
		{name: "refund not possible", kind: refund, outcome: taken, answers: answers{refundsOf76: refusal("ACCOUNT_NOT_ALLOWED_CREDIT")}, want: gone, reason: "ACCOUNT_NOT_ALLOWED_CREDIT"},
		{name: "refund of an authorization", kind: refund, outcome: authorized, want: gone, reason: reasonNoPaymentID},
		{name: "refund of a capture", kind: refund, outcome: authorized, of: "79", answers: answers{refundsOf79: created("PENDING")}, want: done, id: "77", calls: refundsOf79},
		{name: "refund of a capture of what was asked to be a sale", kind: refund, outcome: taken, of: "79", answers: answers{refundsOf79: created("PENDING")}, want: done, id: "77", calls: refundsOf79},
		{name: "unknown refund, found", kind: refund, outcome: taken, unknown: true, answers: answers{searches: found(of("op-refund-1", "149.00", row("78", "100", "", "ics_credit 1")))}, want: done, id: "78"},
		{name: "unknown refund, sent again, too much now", kind: refund, outcome: taken, unknown: true, old: true, answers: answers{searches: found(), refundsOf76: refusal("INVALID_DATA", "orderInformation.amountDetails.totalAmount")}, want: open, reason: "INVALID_DATA", calls: refundsOf76},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, p := newScript(t, tt.answers)
			a := testAttempt()
			a.Capture = tt.sale || tt.outcome == conversations.OutcomeCaptured
			a.Result = conversations.Result{Outcome: tt.outcome, PaymentID: "76", Amount: zar149}
			op := operation(tt.kind, a, 14900)
			if tt.of != "" {
				op.PaymentID = tt.of
			}
			if tt.old {
				op.StartedAt = op.StartedAt.Add(-searchLag)
			}
			if tt.unknown {
				op.State = conversations.OperationUnsettled
			}
			do := map[conversations.OperationKind]follower{
				conversations.OperationReversal: p.Reverse, conversations.OperationVoid: p.Reverse,
				conversations.OperationCapture: p.Capture, conversations.OperationRefund: p.Refund,
			}[tt.kind]
			got, err := do(t.Context(), op, a)
			if got.State != tt.want || got.Reason != tt.reason || got.ID != tt.id || (err != nil) != (tt.want == later || tt.want == open) {
				t.Errorf("state %q (%s) %q, %v, want %q (%s) %q; calls %q", got.State, got.Reason, got.ID, err, tt.want, tt.reason, tt.id, s.calls())
			}
			if got.ID == "77" && got.ReconciliationID != "R77" {
				t.Errorf("reconciliation id %q, want R77", got.ReconciliationID)
			}
			if moves := s.moves(); tt.calls != "" && !slices.Equal(moves, splitCalls(tt.calls)) {
				t.Errorf("calls %q, want %s", moves, tt.calls)
			}
		})
	}
}

// moves returns the calls that move money: method and path.
func (s *script) moves() []string {
	var moves []string
	for _, call := range s.calls() {
		if parts := strings.SplitN(call, " ", 3); strings.HasPrefix(parts[1], "/pts/") {
			moves = append(moves, parts[0]+" "+parts[1])
		}
	}
	return moves
}

func splitCalls(s string) []string {
	var calls []string
	for i, part := range strings.Split(s, "POST ") {
		if i > 0 {
			calls = append(calls, "POST "+strings.TrimSpace(part))
		}
	}
	return calls
}

// An operation may wait for days before it is sent. What counts for the search
// is when it may have been sent last.
func TestWhatWasSentLatelyMayYetShow(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{searches: found(), refundsOf76: created("PENDING")})
	a := testAttempt()
	a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "76", Amount: zar149}
	op := operation(conversations.OperationRefund, a, 100)
	op.State, op.StartedAt = conversations.OperationUnsettled, time.Now().Add(-72*time.Hour)
	sent := time.Now().Add(-searchLag / 2)
	op.SentBy = &sent
	if got, err := p.Refund(t.Context(), op, a); got.State != conversations.OperationUnsettled || err == nil || len(s.moves()) != 0 {
		t.Errorf("%+v, %v, calls %q, want none: it may have been done", got, err, s.moves())
	}
	sent = sent.Add(-searchLag)
	if got, err := p.Refund(t.Context(), op, a); got.State != conversations.OperationSucceeded || err != nil || len(s.moves()) != 1 {
		t.Errorf("%+v, %v, calls %q, want it sent again", got, err, s.moves())
	}
}

func TestSearchLagIsASetting(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{searches: found(), refundsOf76: created("PENDING")})
	p.searchLag = time.Minute
	a := testAttempt()
	a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "76", Amount: zar149}
	op := operation(conversations.OperationRefund, a, 100)
	op.State, op.StartedAt = conversations.OperationUnsettled, time.Now().Add(-2*time.Minute)
	if got, err := p.Refund(t.Context(), op, a); got.State != conversations.OperationSucceeded || err != nil || len(s.moves()) != 1 {
		t.Errorf("%+v, %v, calls %q, want it sent again", got, err, s.moves())
	}
}

func TestOperationIsNotSentAfterItsTime(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{searches: found()})
	a := testAttempt()
	a.Result = conversations.Result{Outcome: conversations.OutcomeCaptured, PaymentID: "76", Amount: zar149}
	past := time.Now().Add(-time.Second)
	for _, tt := range []struct {
		do    follower
		kind  conversations.OperationKind
		state conversations.OperationState
		want  conversations.OperationState
	}{
		{p.Reverse, conversations.OperationVoid, conversations.OperationPending, conversations.OperationPending},
		{p.Capture, conversations.OperationCapture, conversations.OperationPending, conversations.OperationPending},
		{p.Refund, conversations.OperationRefund, conversations.OperationPending, conversations.OperationPending},
		{p.Refund, conversations.OperationRefund, conversations.OperationUnsettled, conversations.OperationUnsettled},
	} {
		op := operation(tt.kind, a, 14900)
		op.SendBy, op.State, op.StartedAt = &past, tt.state, op.StartedAt.Add(-searchLag)
		if got, err := tt.do(t.Context(), op, a); got.State != tt.want || got.Reason != reasonNotSent || err == nil {
			t.Errorf("%s, %s: %+v, %v, want %s", tt.kind, tt.state, got, err, tt.want)
		}
	}
	if moves := s.moves(); len(moves) != 0 {
		t.Errorf("calls %q, want none", moves)
	}
}

func TestOperationBodies(t *testing.T) {
	t.Parallel()
	s, p := newScript(t, map[string]scripted{
		capturesOf76: created("PENDING"), refundsOf79: created("PENDING"), voidsOf79: created("VOIDED"), reversalsOf76: created("REVERSED"),
	})
	a := testAttempt()
	a.Capture = false
	a.Result = conversations.Result{Outcome: conversations.OutcomeAuthorized, PaymentID: "76", Amount: zar149}
	for _, tt := range []struct {
		do   follower
		kind conversations.OperationKind
		id   string
		of   string
		want []string
	}{
		{p.Capture, conversations.OperationCapture, "pr_07abc-op1", "76", []string{capturesOf76 + ` {"clientReferenceInformation":{"code":"pr_07abc-op1","transactionId":"PR07ABCOP1"},"orderInformation":{"amountDetails":{"totalAmount":"10.00","currency":"ZAR"}}}`}},
		{p.Refund, conversations.OperationRefund, "pr_07abc-op2", "79", []string{refundsOf79 + ` {"clientReferenceInformation":{"code":"pr_07abc-op2","transactionId":"PR07ABCOP2"},"orderInformation":{"amountDetails":{"totalAmount":"10.00","currency":"ZAR"}}}`}},
		{p.Refund, conversations.OperationRefund, "pr_0123456789abcdefghjk-op1234567", "79", []string{refundsOf79 + ` {"clientReferenceInformation":{"code":"pr_0123456789abcdefghjk-op1234567"},"orderInformation":{"amountDetails":{"totalAmount":"10.00","currency":"ZAR"}}}`}},
		{p.Reverse, conversations.OperationVoid, "pr_07abc-op3", "79", []string{
			voidsOf79 + ` {"clientReferenceInformation":{"code":"pr_07abc-op3"}}`,
			reversalsOf76 + ` {"clientReferenceInformation":{"code":"pr_07abc-op3"},"reversalInformation":{"amountDetails":{"totalAmount":"149.00","currency":"ZAR"},"reason":"asked"}}`,
		}},
	} {
		before := len(s.calls())
		op := operation(tt.kind, a, 1000)
		op.ID, op.PaymentID, op.Reason = tt.id, tt.of, conversations.OperationAsked
		if got, err := tt.do(t.Context(), op, a); got.State != conversations.OperationSucceeded {
			t.Errorf("%s: %+v, %v", tt.kind, got, err)
		}
		if calls := s.calls()[before:]; !slices.Equal(calls, tt.want) {
			t.Errorf("calls\n got %q\nwant %q", calls, tt.want)
		}
	}
	for _, id := range []string{"", "-op1", "pr OR x", strings.Repeat("x", maxCode+1)} {
		op := operation(conversations.OperationCapture, a, 1000)
		op.ID = id
		if got, _ := p.Capture(t.Context(), op, a); got.State != conversations.OperationFailed {
			t.Errorf("id %q: %+v, want failed", id, got)
		}
	}
}
