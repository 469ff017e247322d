package cybersource

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"paythread/simulator/faults"
)

// transactionsOf are what the books have under a reference.
func (w *world) transactionsOf(code string) []Transaction {
	w.t.Helper()
	var list []Transaction
	for _, t := range w.sim.Transactions() {
		if t.Code == code {
			list = append(list, t)
		}
	}
	return list
}

func (w *world) rules(rules ...faults.Rule) {
	w.t.Helper()
	if err := w.faults.Replace(rules); err != nil {
		w.t.Fatal(err)
	}
}

// tried makes a call, on a fresh payment where it needs one, and returns the answer and whether it had
// an effect.
func (w *world) tried(name, code string) (response, bool) {
	w.t.Helper()
	count := func() int { return len(w.sim.Transactions()) }
	var r response
	n := 0
	switch name {
	case callPayments:
		token := w.token("4111111111111111")
		n = count()
		r = w.pay(payment(token, code, "100.00", true))
		return r, count() == n+1 && slices.Contains([]string{KindSale, KindAuthorization}, w.transactionsOf(code)[0].Kind)
	case callCaptures:
		id := w.approve(code, "100.00", false)
		n = count()
		r = w.post("/pts/v2/payments/"+id+"/captures", order("100.00"))
	case callReversals:
		id := w.approve(code, "100.00", false)
		n = count()
		r = w.post("/pts/v2/payments/"+id+"/reversals", reversal("100.00"))
	case callRefunds:
		id := w.approve(code, "100.00", true)
		n = count()
		r = w.post("/pts/v2/payments/"+id+"/refunds", order("100.00"))
	case callVoids:
		id := w.approve(code, "100.00", true)
		n = count()
		r = w.post("/pts/v2/payments/"+id+"/voids", `{}`)
	case callSearches:
		r = w.post("/tss/v2/searches", `{"query":"id:1","sort":"submitTimeUtc:desc"}`)
		return r, false
	case callTransactions:
		return w.get("/tss/v2/transactions/1"), false
	case callSessions:
		return w.post("/uc/v1/sessions", toJSON(w.t, session())), false
	}
	return r, count() == n+1
}

// TestEveryNamedOutcome: each name gives the answer that it says, with the effect that it says.
func TestEveryNamedOutcome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SearchDelay = -1 })
	seen := map[string]bool{}
	for i, o := range Outcomes() {
		if key := o.Call + " " + o.Name; seen[key] {
			t.Errorf("%s is listed twice", key)
		} else {
			seen[key] = true
		}
		w.rules(o.Rule())
		code := fmt.Sprintf("N-%d", i)
		r, done := w.tried(o.Call, code)
		reason := r.text("reason") + r.text("errorInformation.reason")
		if r.status != o.HTTP || r.text("status") != o.Status || reason != o.Reason || done != o.Moves {
			t.Errorf("%s %s: got %d %s, effect %t; want status %d %s %s, effect %t", o.Call, o.Name, r.status, r.body, done, o.HTTP, o.Status, o.Reason, o.Moves)
		}
		if o.HTTP >= 500 && o.Status != "" && len(r.text("id")) != 22 {
			t.Errorf("%s %s: an error has an id, got %s", o.Call, o.Name, r.body)
		}
		if o.Status == statusDeclined && o.Reason != newWord && r.text("errorInformation.message") == "" {
			t.Errorf("%s %s: no message, got %s", o.Call, o.Name, r.body)
		}
		if o.Call == callPayments && (o.HTTP == http.StatusCreated || o.HTTP >= 500) && o.Status != "" {
			w.wantFound(code, o)
		}
	}
	for _, status := range []string{"AUTHORIZED", "PARTIAL_AUTHORIZED", "AUTHORIZED_PENDING_REVIEW", "AUTHORIZED_RISK_DECLINED", "PENDING_AUTHENTICATION", "PENDING_REVIEW",
		"PENDING", "DECLINED", "INVALID_REQUEST", "SERVER_ERROR", "500"} {
		if !slices.ContainsFunc(Outcomes(), func(o Outcome) bool { return o.Call == callPayments && o.Status == status }) {
			t.Errorf("no payment comes to %s", status)
		}
	}
}

// wantFound says that a payment has a row in search, with a code that tells success from decline.
func (w *world) wantFound(code string, o Outcome) {
	w.t.Helper()
	r := w.post("/tss/v2/searches", `{"query":"clientReferenceInformation.code:`+code+`","sort":"submitTimeUtc:desc"}`)
	rows, _ := r.at("_embedded.transactionSummaries").([]any)
	if len(rows) != 1 {
		w.t.Errorf("%s: %d rows in search, want one: %s", o.Name, len(rows), r.body)
		return
	}
	rCode := rows[0].(map[string]any)["applicationInformation"].(map[string]any)["rCode"]
	want := map[bool]string{true: "1", false: "0"}[o.Status == "AUTHORIZED" || o.Status == "PARTIAL_AUTHORIZED" || o.Status == "PENDING" || strings.HasSuffix(o.Name, "/done")]
	if w.transactionsOf(code)[0].Kind == KindError {
		want = "-1"
	}
	if rCode != want {
		w.t.Errorf("%s: rCode %v, want %s", o.Name, rCode, want)
	}
}

func TestShortNamesOfOutcomes(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"EXPIRED_CARD": "201/DECLINED/EXPIRED_CARD", "PENDING_REVIEW": "201/PENDING_REVIEW/DECISION_PROFILE_REVIEW", "INVALID_DATA": "400/INVALID_REQUEST/INVALID_DATA",
		"AVS_FAILED": "201/AUTHORIZED_PENDING_REVIEW/AVS_FAILED", "SYSTEM_ERROR": "502/SERVER_ERROR/SYSTEM_ERROR", "500": "500/500/SYSTEM_ERROR", "429": "429",
		"DECISION_PROFILE_REJECT": "201/AUTHORIZED_RISK_DECLINED/DECISION_PROFILE_REJECT", "201/DECLINED/AVS_FAILED": "201/DECLINED/AVS_FAILED",
	} {
		if o, ok := findOutcome(callPayments, word); !ok || o.name() != want {
			t.Errorf("%s: got %s, want %s", word, o.name(), want)
		}
	}
	set := newWorld(t).faults
	for _, rule := range []faults.Rule{
		{Call: callPayments, Do: faults.Refuse, Outcome: "EXPIRED"}, {Call: callVoids, Do: faults.Refuse, Outcome: "EXPIRED_CARD"},
		{Call: "meta.messages", Do: faults.Refuse, Outcome: "429"}, {Call: callPayments, Do: faults.Refuse, Outcome: "429", Code: new(1)},
		{Call: callPayments, Do: faults.Status, Status: 500, Outcome: "429"}, {Call: "cybersource.*", Do: faults.Refuse, Outcome: "NOT_VOIDABLE"},
	} {
		if err := set.Replace([]faults.Rule{rule}); err == nil {
			t.Errorf("%+v: taken", rule)
		}
	}
	if err := set.Replace([]faults.Rule{{Call: "cybersource.*", Do: faults.Refuse, Outcome: "401"}}); err != nil {
		t.Error(err)
	}
}

// TestCardsAreListedWithTheirOutcomes: every test card is named by one outcome of payments.
func TestCardsAreListedWithTheirOutcomes(t *testing.T) {
	t.Parallel()
	listed := map[string]int{}
	for _, o := range Outcomes() {
		for _, number := range o.Cards {
			listed[number]++
		}
	}
	for _, c := range TestCards() {
		if listed[c.Number] != 1 {
			t.Errorf("%s (%s) is listed %d times", c.Number, c.Label, listed[c.Number])
		}
	}
}

func TestReviewBeforeAuthorization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, accept := range []bool{true, false} {
		code := fmt.Sprint("R-", accept)
		r := w.pay(payment(w.token("4000000000000218"), code, "10.00", true))
		wantStatus(t, r, 201, "PENDING_REVIEW")
		if got := w.transactionsOf(code)[0]; got.Kind != KindPending || got.Review != "open" {
			t.Errorf("before the review: got %+v", got)
		}
		if !w.sim.DecideReview(r.text("id"), accept) {
			t.Fatal("not under review")
		}
		want := map[bool]string{true: "sale AUTHORIZED accepted", false: "decline DECLINED rejected"}[accept]
		if got := w.transactionsOf(code)[0]; got.Kind+" "+got.Status+" "+got.Review != want {
			t.Errorf("after the review: got %+v, want %s", got, want)
		}
	}
}

func TestReviewsMayAllowReversals(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{false, true} {
		w := newWorld(t, func(c *Config) { c.ReviewsAllowReversals = allow })
		id := w.pay(payment(w.token("4000000000009235"), "R", "10.00", true)).text("id")
		r := w.post("/pts/v2/payments/"+id+"/reversals", reversal("10.00"))
		if !allow {
			wantRefused(t, r, 400, "INVALID_DATA")
			continue
		}
		wantStatus(t, r, 201, "REVERSED")
		if w.sim.DecideReview(id, true) {
			t.Error("a reversed payment could still be accepted")
		}
	}
}

func TestPaymentIsReadAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.approve("READ", "10.00", false)
	r := w.get("/pts/v2/payments/" + id)
	if r.status != 200 || r.text("id") != id || r.text("orderInformation.amountDetails.authorizedAmount") != "10.00" {
		t.Errorf("got %d %s", r.status, r.body)
	}
	if r := w.asOther().get("/pts/v2/payments/" + id); r.status != 404 {
		t.Errorf("another merchant's payment: got %d", r.status)
	}
}
