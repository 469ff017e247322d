package main

import (
	"fmt"
	"strings"
	"testing"

	"paythread/conversations"
)

// operate asks for an operation as a token may.
func (b *apiBench) operate(id, action, token, key string, body any) apiReply {
	b.t.Helper()
	c := apiCall{method: "POST", path: "/v1/payment-requests/" + id + "/" + action, token: token, body: body}
	if key != "" {
		c.header = map[string]string{"Idempotency-Key": key}
	}
	return b.call(c)
}

// answerOperation lets the platform answer the newest operation.
func (b *apiBench) answerOperation(id string, state conversations.OperationState, word string) {
	b.t.Helper()
	r := b.request(id)
	op := r.Operations[len(r.Operations)-1]
	entry := fmt.Sprintf("1-%d", len(r.Operations))
	b.apply(r, conversations.OperationStarted{RequestID: id, OperationID: op.ID, EntryID: entry})
	b.apply(r, conversations.OperationAnswered{RequestID: id, OperationID: op.ID, State: state, Error: word, ResultID: "9" + fmt.Sprint(len(r.Operations)), ReconciliationID: "REC1", EntryID: entry})
}

// TestRefundByAPI: parts are reserved at once, and a repeat is one refund.
func TestRefundByAPI(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	b.operate(id, "refund", acmeKey, "", nil).problem(t, 409, "conflict", "not_refundable")
	b.pay(id, conversations.OutcomeCaptured)
	if got := fmt.Sprint(b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: acmeKey}).get("actions")); got != "[resend reverse refund]" {
		t.Errorf("actions %s", got)
	}
	ten := object{"amount": zar("10.00"), "reason": "one part was missing", "expected_refundable": zar("149.00")}
	first := b.operate(id, "refund", acmeKey, "k1", ten).want(t, 200)
	for path, want := range map[string]any{
		"operations.0.kind": "refund", "operations.0.state": "pending", "operations.0.amount.value": "10.00", "operations.0.reason": "asked", "operations.0.elsewhere": false,
		"operations.0.note": "one part was missing", "operations.0.text": "The refund of ZAR 10.00 is on its way.", "totals.refundable.value": "139.00", "totals.refunded.value": "0.00", "lifecycle": "paid",
	} {
		if got := first.get(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	if again := b.operate(id, "refund", acmeKey, "k1", ten).want(t, 200); len(again.get("operations").([]any)) != 1 {
		t.Errorf("a repeat refunds again: %s", again.raw)
	}
	b.operate(id, "refund", acmeKey, "k1", object{"amount": zar("11.00")}).problem(t, 422, "idempotency_mismatch", "idempotency_mismatch", "Idempotency-Key")
	p := b.operate(id, "refund", acmeKey, "", ten)
	p.problem(t, 409, "conflict", "refundable_changed")
	if !strings.Contains(p.text("detail"), "139.00") {
		t.Errorf("the refusal does not say what is left: %s", p.raw)
	}
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("139.01")}).problem(t, 409, "conflict", "beyond_refundable")
	b.answerOperation(id, conversations.OperationSucceeded, "")
	r := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: acmeKey}).want(t, 200)
	for path, want := range map[string]any{
		"lifecycle": "partially_refunded", "totals.refunded.value": "10.00", "operations.0.state": "succeeded", "operations.0.reconciliation_id": "REC1", "operations.0.text": "ZAR 10.00 was refunded to the customer.",
	} {
		if got := r.get(path); got != want {
			t.Errorf("once refunded %s is %v, want %v", path, got, want)
		}
	}
	rest := b.operate(id, "refund", acmeKey, "", nil).want(t, 200)
	if rest.text("operations.1.amount.value") != "139.00" {
		t.Errorf("the rest: %s", rest.raw)
	}
	b.answerOperation(id, conversations.OperationSucceeded, "")
	if r := b.request(id); r.Lifecycle != conversations.Refunded {
		t.Errorf("refunded in full it is %s", r.Lifecycle)
	}
	b.operate(id, "reverse", acmeKey, "", nil).problem(t, 409, "conflict", "not_reversible")
	events := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id + "/events", token: acmeKey, header: map[string]string{"Accept": "application/json"}}).want(t, 200)
	told := map[string]string{}
	for i, item := range events.get("items").([]any) {
		e, at := item.(map[string]any), fmt.Sprintf("items.%d.", i)
		if e["operation"] != nil {
			told[e["type"].(string)] = events.text(at+"operation.amount.value") + " " + events.text(at+"text")
		}
	}
	if told["operation_asked"] != "139.00 The refund of ZAR 139.00 is on its way." || told["refunded"] != "139.00 ZAR 139.00 was refunded to the customer." {
		t.Errorf("the events say %q", told)
	}
}

// TestCaptureAndReverseByAPI: a hold is captured in parts, and another released.
func TestCaptureAndReverseByAPI(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042", object{"capture": false}).text("id")
	b.pay(id, conversations.OutcomeAuthorized)
	first := b.operate(id, "capture", acmeKey, "", object{"amount": zar("100.00"), "reason": "first parcel"}).want(t, 200)
	if first.text("totals.capturable.value") != "49.00" || first.text("operations.0.kind") != "capture" {
		t.Errorf("while it is captured: %s", first.raw)
	}
	b.operate(id, "reverse", acmeKey, "", nil).problem(t, 409, "conflict", "not_reversible")
	b.answerOperation(id, conversations.OperationSucceeded, "")
	b.operate(id, "capture", acmeKey, "", object{"amount": zar("49.01")}).problem(t, 409, "conflict", "beyond_capturable")
	b.operate(id, "capture", acmeKey, "", nil).want(t, 200)
	b.answerOperation(id, conversations.OperationFailed, "EXCEEDS_AUTH_AMOUNT")
	r := b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: acmeKey}).want(t, 200)
	if r.text("operations.1.error") != "EXCEEDS_AUTH_AMOUNT" || r.text("operations.1.text") != "The capture of ZAR 49.00 has failed. The amount is more than what is held." || r.text("lifecycle") != "paid" {
		t.Errorf("a capture that failed: %s", r.raw)
	}

	held := b.create("1043", object{"capture": false}).text("id")
	b.pay(held, conversations.OutcomeAuthorized)
	if r := b.operate(held, "reverse", acmeKey, "", object{"reason": "out of stock"}).want(t, 200); r.text("operations.0.kind") != "reversal" || r.text("operations.0.note") != "out of stock" {
		t.Errorf("reversed: %s", r.raw)
	}
	b.answerOperation(held, conversations.OperationSucceeded, "")
	if r := b.request(held); r.Lifecycle != conversations.Reversed {
		t.Errorf("it is %s", r.Lifecycle)
	}
	b.operate(held, "capture", acmeKey, "", nil).problem(t, 409, "conflict", "not_capturable")
}

// TestOperationAmounts: what is wrong with an amount is named by its field, and
// nothing happens.
func TestOperationAmounts(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	id := b.create("1042").text("id")
	b.pay(id, conversations.OutcomeCaptured)
	before := b.keep()
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("10.001")}).problem(t, 422, "invalid", "", "amount.value")
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("-1.00")}).problem(t, 422, "invalid", "", "amount.value")
	b.operate(id, "refund", acmeKey, "", object{"amount": object{"value": "1.00", "currency": "ZZZ"}}).problem(t, 422, "invalid", "", "amount.currency")
	b.operate(id, "refund", acmeKey, "", object{"amount": object{"value": 10, "currency": "ZAR"}}).problem(t, 422, "invalid", "", "amount.value")
	b.operate(id, "refund", acmeKey, "", object{"amount": "10.00"}).problem(t, 422, "invalid", "", "amount")
	b.operate(id, "refund", acmeKey, "", object{"amount": jsonNull{}}).problem(t, 422, "invalid", "", "amount")
	b.operate(id, "capture", acmeKey, "", object{"amount": jsonNull{}}).problem(t, 422, "invalid", "", "amount")
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("1.00"), "expected_refundable": jsonNull{}}).problem(t, 422, "invalid", "", "expected_refundable")
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("x"), "expected_refundable": zar("y")}).problem(t, 422, "invalid", "", "amount.value", "expected_refundable.value")
	b.operate(id, "refund", acmeKey, "", object{"reason": strings.Repeat("x", 201)}).problem(t, 422, "invalid", "", "reason")
	b.operate(id, "reverse", acmeKey, "", object{"amount": zar("1.00")}).problem(t, 422, "invalid", "", "amount")
	b.operate(id, "capture", acmeKey, "", object{"expected_refundable": zar("1.00")}).problem(t, 422, "invalid", "", "expected_refundable")
	b.operate(id, "refund", acmeKey, "", object{"amount": zar("0.00")}).problem(t, 422, "invalid", "", "amount")
	b.operate(id, "refund", acmeKey, "", object{"amount": object{"value": "1.00", "currency": "USD"}}).problem(t, 422, "invalid", "wrong_currency", "amount.currency")
	b.unchanged(before)
}

// TestOperationGrants: an agent session operates only with the grant, and only
// on the request that holds its order unless it may act on all.
func TestOperationGrants(t *testing.T) {
	t.Parallel()
	b := newAPIBench(t)
	ask := func(token string) string {
		return b.call(apiCall{method: "POST", path: "/v1/payment-requests", token: token, body: object{"channel": "whatsapp"}}).want(t, 201).text("id")
	}
	plain, _ := b.session("1042")
	id := ask(plain)
	b.pay(id, conversations.OutcomeCaptured)
	acting, _ := b.session("1043", object{"grants": []string{"act_all", "read_all"}})
	operator, _ := b.session("1042", object{"grants": []string{"operate"}})
	stranger, _ := b.session("1044", object{"grants": []string{"operate"}})
	master, _ := b.session("1045", object{"grants": []string{"operate", "act_all", "read_all"}})
	actions := func(token string) string {
		return fmt.Sprint(b.call(apiCall{method: "GET", path: "/v1/payment-requests/" + id, token: token}).want(t, 200).get("actions"))
	}
	for token, want := range map[string]string{plain: "[resend]", acting: "[resend]", operator: "[resend reverse refund]", master: "[resend reverse refund]"} {
		if got := actions(token); got != want {
			t.Errorf("actions %s, want %s", got, want)
		}
	}
	before := b.keep()
	for _, action := range []string{"capture", "reverse", "refund"} {
		b.operate(id, action, plain, "", nil).problem(t, 403, "forbidden", "not_granted")
		b.operate(id, action, acting, "", nil).problem(t, 403, "forbidden", "not_granted")
		b.operate(id, action, stranger, "", nil).problem(t, 404, "not_found", "")
		b.operate(id, action, betaKey, "", nil).problem(t, 404, "not_found", "")
	}
	b.operate(id, "refund", plain, "", object{"amount": zar("x")}).problem(t, 403, "forbidden", "not_granted")
	b.unchanged(before)
	if r := b.operate(id, "refund", operator, "", object{"amount": zar("1.00")}).want(t, 200); r.text("operations.0.by") != "ag7" {
		t.Errorf("by an agent: %s", r.raw)
	}
	b.operate(id, "refund", master, "", object{"amount": zar("1.00")}).want(t, 200)
	if r := b.operate(id, "refund", acmeKey, "", object{"amount": zar("1.00")}).want(t, 200); r.get("operations.2.by") != nil {
		t.Errorf("by a server: %s", r.raw)
	}
}
