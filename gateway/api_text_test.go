package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"paythread/conversations"
)

// loggedTypes reads from the domain's source every type of event that it logs.
func loggedTypes(t *testing.T) []string {
	t.Helper()
	var types []string
	for file, pattern := range map[string]string{
		"states.go":         `Log: "(\w+)"|backToOpen\(\w+, "(\w+)"`,
		"apply_message.go":  `kind :?= "(\w+)"`,
		"apply_followup.go": `kind :?= "(\w+)"`,
	} {
		source, err := os.ReadFile("../conversations/" + file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		if len(found) < 2 {
			t.Fatalf("%s: %d types found; look at the pattern", file, len(found))
		}
		for _, m := range found {
			types = append(types, m[1]+strings.Join(m[2:], ""))
		}
	}
	types = append(types, "card_testing") // by its constant
	source, err := os.ReadFile("../conversations/payment.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`Milestone\w+ +Milestone = "(\w+)"`).FindAllStringSubmatch(string(source), -1) {
		types = append(types, m[1]) // a message's status is logged as its milestone
	}
	return types
}

func TestEveryEventHasASentence(t *testing.T) {
	t.Parallel()
	types := loggedTypes(t)
	if len(types) < 40 {
		t.Fatalf("only %d types: %v", len(types), types)
	}
	known := map[string]bool{}
	for _, kind := range types {
		known[kind] = true
		if text := eventText(conversations.LoggedEvent{Type: kind}); !isSentence(text) {
			t.Errorf("%s says %q", kind, text)
		}
	}
	for key := range eventTexts {
		if kind, _, _ := strings.Cut(key, "."); !known[kind] {
			t.Errorf("there is a sentence for %q, which is never logged", key)
		}
	}
}

func isSentence(text string) bool {
	return len(text) > 10 && strings.HasSuffix(text, ".") && !strings.Contains(text, "%!") && !strings.Contains(text, "  ")
}

func TestEventTextFollowsTheReason(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		event conversations.LoggedEvent
		want  string
	}{
		{conversations.LoggedEvent{Type: "expired", Reason: conversations.ReasonNotOpened}, "The link was not opened in time."},
		{conversations.LoggedEvent{Type: "expired", Reason: "another"}, "The time for this payment request has run out."},
		{conversations.LoggedEvent{Type: "cancelled", Reason: conversations.ReasonAlreadyPaid}, eventTexts["cancelled.already_paid"]},
		{
			conversations.LoggedEvent{Type: "message_failed", Message: &conversations.LoggedMessage{Purpose: conversations.PurposeReceipt, Status: conversations.DeliveryFailed, Reason: conversations.FailureNotOnChannel}},
			"The receipt message could not be delivered. This number cannot be reached on WhatsApp; SMS may work.",
		},
		{
			conversations.LoggedEvent{Type: "message_updated", Message: &conversations.LoggedMessage{Purpose: conversations.PurposeCancelled, Status: conversations.DeliveryRead}},
			"The message about the cancellation is now read.",
		},
		{
			conversations.LoggedEvent{Type: "delivered", Message: &conversations.LoggedMessage{Purpose: conversations.PurposePayment, Status: conversations.DeliveryDelivered}},
			"The message is on the customer's phone.",
		},
	} {
		if got := eventText(c.event); got != c.want {
			t.Errorf("%s %s says %q, want %q", c.event.Type, c.event.Reason, got, c.want)
		}
	}
}

func TestEveryAttemptHasASentence(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../conversations/payment.go")
	if err != nil {
		t.Fatal(err)
	}
	states := regexp.MustCompile(`Attempt\w+ +AttemptState = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(states) != len(attemptTexts) {
		t.Errorf("%d states, %d sentences", len(states), len(attemptTexts))
	}
	for _, m := range states {
		if text := attemptText(conversations.Attempt{State: conversations.AttemptState(m[1])}); !isSentence(text) {
			t.Errorf("%s says %q", m[1], text)
		}
	}
	for reason, text := range declineTexts {
		declined := conversations.Attempt{State: conversations.AttemptDeclined, Result: conversations.Result{Reason: reason}}
		if attemptText(declined) != text || !isSentence(text) {
			t.Errorf("%s says %q", reason, attemptText(declined))
		}
		declined.State = conversations.AttemptCaptured
		if attemptText(declined) == text {
			t.Errorf("%s is said of an attempt that was captured", reason)
		}
	}
}

// platformReasons are the words of CyberSource's answers to a payment, as its
// field reference lists them: errorInformation.reason, and the reasons of a 400.
var platformReasons = map[conversations.AttemptState][]string{
	conversations.AttemptDeclined: strings.Fields(`AVS_FAILED CONTACT_PROCESSOR EXPIRED_CARD PROCESSOR_DECLINED INSUFFICIENT_FUND STOLEN_LOST_CARD
		ISSUER_UNAVAILABLE UNAUTHORIZED_CARD CVN_NOT_MATCH EXCEEDS_CREDIT_LIMIT INVALID_CVN BLOCKED_BY_CARDHOLDER DECLINED_CHECK
		BLACKLISTED_CUSTOMER SUSPENDED_ACCOUNT PAYMENT_REFUSED CV_FAILED INVALID_ACCOUNT GENERAL_DECLINE INVALID_MERCHANT_CONFIGURATION
		DECISION_PROFILE_REJECT SCORE_EXCEEDS_THRESHOLD PENDING_AUTHENTICATION ACH_VERIFICATION_FAILED DECISION_PROFILE_REVIEW
		CONSUMER_AUTHENTICATION_REQUIRED CONSUMER_AUTHENTICATION_FAILED ALLOWABLE_PIN_RETRIES_EXCEEDED PROCESSOR_ERROR
		CUSTOMER_WATCHLIST_MATCH ADDRESS_COUNTRY_WATCHLIST_MATCH EMAIL_COUNTRY_WATCHLIST_MATCH IP_COUNTRY_WATCHLIST_MATCH`),
	conversations.AttemptNotTaken: strings.Fields(`MISSING_FIELD INVALID_DATA DUPLICATE_REQUEST INVALID_CARD CARD_TYPE_NOT_ACCEPTED INVALID_CARD_TYPE
		INVALID_AMOUNT INVALID_MERCHANT_CONFIGURATION PROCESSOR_UNAVAILABLE NOT_SUPPORTED INVALID_PAYMENT_ID`),
}

// TestEveryReasonHasASentence holds the sentences against the platform's words,
// in both directions.
func TestEveryReasonHasASentence(t *testing.T) {
	t.Parallel()
	ours := map[string]bool{
		"authentication_abandoned": true, "not_sent_in_time": true, reasonTakenBack: true, "NOT_SENT": true,
		"HTTP_401": true, "HTTP_403": true, "HTTP_404": true, "HTTP_429": true, "AUTHENTICATION_FAILED": true, "INVALID_REQUEST": true,
	}
	for state, sentences := range map[conversations.AttemptState]map[string]string{conversations.AttemptDeclined: declineTexts, conversations.AttemptNotTaken: notTakenTexts} {
		for _, reason := range platformReasons[state] {
			a := conversations.Attempt{State: state, Result: conversations.Result{Reason: reason}}
			if text := attemptText(a); text == attemptTexts[state] || !isSentence(text) {
				t.Errorf("%s, %s says %q", state, reason, text)
			}
			if _, ok := sentences[reason]; !ok {
				t.Errorf("%s has no row of its own for %s", state, reason)
			}
		}
		for reason, text := range sentences {
			if !slices.Contains(platformReasons[state], reason) && !ours[reason] {
				t.Errorf("%s has a sentence for %s, which nobody says", state, reason)
			}
			if !isSentence(text) {
				t.Errorf("%s, %s says %q", state, reason, text)
			}
		}
		unknown := conversations.Attempt{State: state, Result: conversations.Result{Reason: "SOMETHING_NEW"}}
		if text := attemptText(unknown); text != attemptTexts[state] {
			t.Errorf("%s for an unknown reason says %q", state, text)
		}
	}
}

// TestFaultsOfTheSetUpAreNotTheCards: when the platform refuses us, no agent
// sends a customer away for another card.
func TestFaultsOfTheSetUpAreNotTheCards(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"HTTP_401", "HTTP_403", "HTTP_404", "MISSING_FIELD", "INVALID_DATA", "INVALID_MERCHANT_CONFIGURATION", "NOT_SUPPORTED"} {
		text := attemptText(conversations.Attempt{State: conversations.AttemptNotTaken, Result: conversations.Result{Reason: reason}})
		if !strings.Contains(text, "Ask your administrator") || strings.Contains(text, "card") || strings.Contains(strings.ToLower(text), "declined") {
			t.Errorf("%s says %q", reason, text)
		}
	}
	event := conversations.LoggedEvent{Type: "attempt_not_taken", Reason: "HTTP_401"}
	if text := eventText(event); text != setUpWrong {
		t.Errorf("the event says %q", text)
	}
}

func TestReviewWithATimeSaysWhen(t *testing.T) {
	t.Parallel()
	by := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	a := conversations.Attempt{State: conversations.AttemptInReview, ReviewBy: &by}
	if text := attemptText(a); !strings.Contains(text, "24 November 09:30 UTC") || !isSentence(text) {
		t.Errorf("it says %q", text)
	}
}

// followOnReasons are the words with which CyberSource refuses to capture,
// reverse, void or refund, and our own.
var followOnReasons = strings.Fields(`EXCEEDS_AUTH_AMOUNT AUTH_ALREADY_REVERSED TRANSACTION_ALREADY_SETTLED MISSING_AUTH
	TRANSACTION_ALREADY_REVERSED_OR_SETTLED CAPTURE_ALREADY_VOIDED ACCOUNT_NOT_ALLOWED_CREDIT NOT_VOIDABLE MISSING_FIELD INVALID_DATA
	INVALID_AMOUNT INVALID_MERCHANT_CONFIGURATION NOT_SUPPORTED INVALID_PAYMENT_ID DUPLICATE_REQUEST PROCESSOR_UNAVAILABLE
	NO_PAYMENT_ID settled under_review`)

// TestEveryOperationHasASentence: each kind in each state, for each reason and
// each refusal, with the amount.
func TestEveryOperationHasASentence(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../conversations/payment.go")
	if err != nil {
		t.Fatal(err)
	}
	words := func(pattern string, least int) (found []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1) {
			found = append(found, m[1])
		}
		if len(found) < least {
			t.Fatalf("%q finds %v: this test does not see them", pattern, found)
		}
		return found
	}
	kinds := words(`Operation\w+ +OperationKind += "(\w+)"`, 4)
	states := words(`Operation\w+ +OperationState = "(\w+)"`, 4)
	reasons := words(`(?m)^\tOperation\w+ += "(\w+)"`, 9)
	amount := conversations.Money{Minor: 14900, Currency: "ZAR"}
	for _, kind := range kinds {
		for _, state := range states {
			for _, reason := range reasons {
				for _, word := range append(followOnReasons, "", "SOMETHING_NEW") {
					text := operationText(conversations.OperationKind(kind), conversations.OperationState(state), amount, reason, word)
					if !isSentence(text) || !strings.Contains(text, "ZAR 149.00") {
						t.Fatalf("%s, %s, %s, %s says %q", kind, state, reason, word, text)
					}
				}
			}
		}
	}
	for _, reason := range reasons {
		if _, ok := operationReasons[reason]; !ok {
			t.Errorf("no words for the reason %s", reason)
		}
	}
	for _, word := range followOnReasons {
		if _, ok := operationErrors[word]; !ok {
			t.Errorf("no words for the refusal %s", word)
		}
	}
}

func TestOperationTexts(t *testing.T) {
	t.Parallel()
	amount := conversations.Money{Minor: 1050, Currency: "ZAR"}
	for _, c := range []struct {
		kind         conversations.OperationKind
		state        conversations.OperationState
		reason, word string
		want         string
	}{
		{conversations.OperationVoid, conversations.OperationFailed, "asked", "settled", "The payment of ZAR 10.50 could not be called off. The money is settled already: refund it instead."},
		{conversations.OperationVoid, conversations.OperationFailed, "second_success", "settled", "The payment of ZAR 10.50 could not be called off. The customer had paid twice. The money is settled already, so it is refunded instead."},
		{conversations.OperationRefund, conversations.OperationSucceeded, "elsewhere", "", "ZAR 10.50 was refunded to the customer. It was done at the payment platform, not here."},
		{conversations.OperationCapture, conversations.OperationFailed, "asked", "NOT_KNOWN_YET", "The capture of ZAR 10.50 has failed. Ask your administrator to look it up at the platform."},
		{conversations.OperationReversal, conversations.OperationPending, "review_timed_out", "under_review", "The hold of ZAR 10.50 is being released. The reviewers had not decided in time. The platform's reviewers have to decide first; it is tried again by itself."},
	} {
		if got := operationText(c.kind, c.state, amount, c.reason, c.word); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		event := conversations.LoggedEvent{Type: "operation_failed", Operation: &conversations.LoggedOperation{Kind: c.kind, State: c.state, Amount: amount, Reason: c.reason, Error: c.word}}
		if got := eventText(event); got != c.want {
			t.Errorf("the event says %q, want %q", got, c.want)
		}
	}
}

func TestEveryPurposeHasAName(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../conversations/message.go")
	if err != nil {
		t.Fatal(err)
	}
	purposes := regexp.MustCompile(`Purpose\w+ +Purpose = "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	if len(purposes) != len(messageNames) {
		t.Errorf("%d purposes, %d names", len(purposes), len(messageNames))
	}
}
