package cybersource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/simulator/faults"
)

func vpc(c *Config) { c.Processor = processorVPC }

func TestApprovedAuthorizationAndSale(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth := w.pay(payment(w.token("4111111111111111"), "INV-1", "149.99", false))
	wantStatus(t, auth, 201, "AUTHORIZED")
	if len(auth.text("id")) != 22 || strings.Trim(auth.text("id"), digits) != "" {
		t.Errorf("id: got %q, want 22 digits", auth.text("id"))
	}
	if auth.at("_links.capture") == nil || auth.at("_links.authReversal") == nil || auth.at("_links.void") != nil {
		t.Errorf("links of an authorization: got %v", auth.at("_links"))
	}
	if got := auth.text("orderInformation.amountDetails.authorizedAmount"); got != "149.99" {
		t.Errorf("authorizedAmount: got %q", got)
	}
	if auth.header.Get("v-c-correlation-id") == "" || auth.text("processorInformation.networkTransactionId") == "" || auth.text("paymentInformation.card.type") != "001" {
		t.Errorf("answer: got %s", auth.body)
	}
	// The amount of the request counts, not the one that the context was made for.
	sale := w.pay(payment(w.token("5555555555554444"), "INV-2", "20.00", true))
	wantStatus(t, sale, 201, "AUTHORIZED")
	if sale.at("_links.void") == nil || sale.at("_links.capture") != nil || sale.text("orderInformation.amountDetails.totalAmount") != "20.00" {
		t.Errorf("sale: got %s", sale.body)
	}
	want := []string{"authorization INV-1 149.99", "sale INV-2 20.00"}
	for i, tr := range w.sim.Transactions() {
		if got := tr.Kind + " " + tr.Code + " " + tr.Amount; got != want[i] || tr.Merchant != testMerchant {
			t.Errorf("transaction %d: got %s of %s, want %s", i, got, tr.Merchant, want[i])
		}
	}
}

func TestEveryTestCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range TestCards() {
		t.Run(c.Label, func(t *testing.T) {
			t.Parallel()
			if !luhn(c.Number) || c.Network == "" {
				t.Fatalf("%s is not a card number", c.Number)
			}
			r := w.pay(payment(w.token(c.Number), "CARD-"+c.Number, "149.99", false))
			got := fmt.Sprint(r.status, " ", r.text("status"))
			reason := r.text("errorInformation.reason")
			if r.status == 502 {
				reason = r.text("reason")
			}
			if reason != "" {
				got += " " + reason
			}
			if got != c.Outcome {
				t.Errorf("got %q, want %q", got, c.Outcome)
			}
			if declined := r.text("status") == "DECLINED"; declined && (r.at("_links") != nil || r.text("paymentInsightsInformation.responseInsights.categoryCode") == "") {
				t.Errorf("decline: got %s", r.body)
			}
			if r.status == 502 && len(r.text("id")) != 22 {
				t.Errorf("a 502 has an id, got %s", r.body)
			}
		})
	}
}

func TestAmountTriggers(t *testing.T) {
	t.Parallel()
	for processor, cases := range map[string]map[string]string{
		processorVPC: {
			"1000.00": "AUTHORIZED", "4011.00": "AUTHORIZED", "4003.00": "DECLINED PROCESSOR_DECLINED", "4006.00": "SERVER_ERROR SYSTEM_ERROR",
			"4051.00": "DECLINED INSUFFICIENT_FUND", "4054.00": "DECLINED EXPIRED_CARD", "4051.50": "AUTHORIZED",
			"40.00": "AUTHORIZED_PENDING_REVIEW AVS_FAILED", "6002.00": "AUTHORIZED_PENDING_REVIEW CV_FAILED", "2000.00": "AUTHORIZED",
		},
		processorPaymentech: {
			"2000": "SERVER_ERROR SYSTEM_ERROR", "1500": "DECLINED PROCESSOR_DECLINED", "2201": "DECLINED INVALID_ACCOUNT",
			"2225": "DECLINED GENERAL_DECLINE", "401": "AUTHORIZED_PENDING_REVIEW CONTACT_PROCESSOR", "4003.00": "AUTHORIZED",
		},
		"": {"2000": "AUTHORIZED", "4003.00": "AUTHORIZED"},
	} {
		w := newWorld(t, func(c *Config) { c.Processor = processor })
		for total, want := range cases {
			r := w.pay(payment(w.token("4111111111111111"), "T", total, true))
			got := strings.TrimSpace(r.text("status") + " " + r.text("errorInformation.reason") + r.text("reason"))
			if got != want {
				t.Errorf("%s %s: got %q, want %q", processor, total, got, want)
			}
		}
	}
}

func TestIgnoredChecksApprove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vpc)
	options := func(o object) func(object) {
		return func(p object) { p["processingInformation"].(object)["authorizationOptions"] = o }
	}
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "A", "6001.00", true, options(object{"ignoreAvsResult": "true"}))), 201, "AUTHORIZED")
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "B", "6002.00", true, options(object{"ignoreCvResult": "true"}))), 201, "AUTHORIZED")
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "C", "6003.00", true)), 201, "AUTHORIZED")
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "D", "6003.00", true, options(object{"partialAuthIndicator": true}))), 201, "PARTIAL_AUTHORIZED")
	skip := func(p object) { p["processingInformation"].(object)["actionList"] = []string{"DECISION_SKIP"} }
	wantStatus(t, w.pay(payment(w.token("4000000000009235"), "E", "10.00", true, skip)), 201, "AUTHORIZED")
}

func TestPaymentRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	direct := func(number, month, year string) func(object) {
		return func(p object) {
			delete(p, "tokenInformation")
			p["paymentInformation"] = object{"card": object{"number": number, "expirationMonth": month, "expirationYear": year}}
			p["orderInformation"].(object)["billTo"] = madeUp("ZA")
		}
	}
	total := func(v string) func(object) {
		return func(p object) { p["orderInformation"].(object)["amountDetails"].(object)["totalAmount"] = v }
	}
	for _, tt := range []struct {
		name          string
		change        func(object)
		reason, field string
	}{
		{"no amount", func(p object) { delete(p, "orderInformation") }, "MISSING_FIELD", "orderInformation.amountDetails.totalAmount"},
		{"no currency", func(p object) {
			p["orderInformation"] = object{"amountDetails": object{"totalAmount": "1.00"}}
		}, "MISSING_FIELD", "orderInformation.amountDetails.currency"},
		{"negative", total("-1"), "INVALID_DATA", "orderInformation.amountDetails.totalAmount"},
		{"too large", total("100000000000"), "INVALID_DATA", "orderInformation.amountDetails.totalAmount"},
		{"thousands separator", total("1,000.00"), "INVALID_DATA", "orderInformation.amountDetails.totalAmount"},
		{"unknown currency", func(p object) {
			p["orderInformation"].(object)["amountDetails"].(object)["currency"] = "ZZZ"
		}, "INVALID_DATA", "orderInformation.amountDetails.currency"},
		{"no card", func(p object) { delete(p, "tokenInformation") }, "MISSING_FIELD", "paymentInformation.card.number"},
		{"forged token", func(p object) {
			token := p["tokenInformation"].(object)["transientTokenJwt"].(string)
			p["tokenInformation"] = object{"transientTokenJwt": token[:len(token)-8] + "AAAAAAAA"}
		}, "INVALID_DATA", "tokenInformation.transientTokenJwt"},
		{"unknown jti", func(p object) { p["tokenInformation"] = object{"jti": strings.Repeat("A", 64)} }, "INVALID_DATA", "tokenInformation.jti"},
		{"Luhn", direct("4111111111111112", "12", "2031"), "INVALID_DATA", "paymentInformation.card.number"},
		{"21 digits", direct("411111111111111111116", "12", "2031"), "INVALID_DATA", "paymentInformation.card.number"},
		{"month 13", direct("4111111111111111", "13", "2031"), "INVALID_DATA", "paymentInformation.card.expirationMonth"},
		{"year 1998", direct("4111111111111111", "12", "1998"), "INVALID_DATA", "paymentInformation.card.expirationYear"},
		{"long code", func(p object) {
			p["clientReferenceInformation"] = object{"code": strings.Repeat("x", 51)}
		}, "INVALID_DATA", "clientReferenceInformation.code"},
		{"long transactionId", withTransactionID(strings.Repeat("1", 31)), "INVALID_DATA", "clientReferenceInformation.transactionId"},
		{"no province in the US", func(p object) {
			p["orderInformation"].(object)["billTo"] = object{"country": "US"}
			p["tokenInformation"] = object{"transientTokenJwt": w.tokenWithout("administrativeArea")}
		}, "MISSING_FIELD", "orderInformation.billTo.administrativeArea"},
		{"no e-mail", func(p object) {
			p["tokenInformation"] = object{"transientTokenJwt": w.tokenWithout("email")}
		}, "MISSING_FIELD", "orderInformation.billTo.email"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := payment(w.token("4111111111111111"), "BAD", "149.99", true)
			tt.change(p)
			r := w.pay(p)
			wantRefused(t, r, 400, tt.reason)
			details, _ := r.at("details").([]any)
			if len(details) == 0 || details[0].(map[string]any)["field"] != tt.field {
				t.Errorf("details: got %v, want %s", details, tt.field)
			}
		})
	}
	wantStatus(t, w.pay(payment("", "OLD", "149.99", true, direct("4111111111111111", "12", "2025"))), 201, "DECLINED")
	wantStatus(t, w.pay(payment("", "DIRECT", "149.99", true, direct("4111111111111111", "12", "2031"))), 201, "AUTHORIZED")
}

// tokenWithout makes a token whose billing details lack one field.
func (w *world) tokenWithout(field string) string {
	w.t.Helper()
	var bill object
	if err := json.Unmarshal([]byte(toJSON(w.t, madeUp("ZA"))), &bill); err != nil {
		w.t.Fatal(err)
	}
	delete(bill, field)
	r := w.plain("/cybersource/transient-tokens", toJSON(w.t, object{
		"captureContext": w.context(), "billTo": bill,
		"card": object{"number": "4111111111111111", "expirationMonth": "12", "expirationYear": "2031"},
	}))
	return r.text("transientToken")
}

func TestTokenIsUsedUpBySuccessOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const field = "tokenInformation.transientTokenJwt"
	refusedFor := func(r response) {
		t.Helper()
		wantRefused(t, r, 400, "INVALID_DATA")
		if !strings.Contains(r.body, field) {
			t.Errorf("details: got %s, want %s", r.body, field)
		}
	}
	declined := w.token("4000000000000002")
	for range 3 {
		wantStatus(t, w.pay(payment(declined, "D", "10.00", true)), 201, "DECLINED")
	}
	for _, number := range []string{"4111111111111111", "4000000000009235", "4100000000000019", "4012888888881881", "5105105105105100"} {
		token := w.token(number)
		w.pay(payment(token, "A", "10.00", true))
		refusedFor(w.pay(payment(token, "A-2", "10.00", true)))
	}
	unsure := w.token("4000000000000119")
	for range 2 {
		wantStatus(t, w.pay(payment(unsure, "U", "10.00", true)), 502, "SERVER_ERROR")
	}
	old := w.token("4111111111111111")
	w.clock.add(15 * time.Minute)
	refusedFor(w.pay(payment(old, "E", "10.00", true)))
	refusedFor(w.asOther().pay(payment(w.token("4111111111111111"), "O", "10.00", true)))
}

func TestPaymentByJTI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, claims := openUnverified(t, w.token("4111111111111111"))
	p := payment("", "J", "10.00", true, func(p object) { p["tokenInformation"] = object{"jti": claims["jti"]} })
	wantStatus(t, w.pay(p), 201, "AUTHORIZED")
	wantRefused(t, w.pay(p), 400, "INVALID_DATA")
}

func openUnverified(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	_, payload, _ := strings.Cut(token, ".")
	return headerOf(t, token), headerOf(t, payload)
}

func TestTransactionIDIsUnique(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vpc)
	first := payment(w.token("4000000000000002"), "A", "10.00", true, withTransactionID("01XX1"))
	wantStatus(t, w.pay(first), 201, "DECLINED")
	second := payment(w.token("4111111111111111"), "B", "10.00", true, withTransactionID("01XX1"))
	r := w.pay(second)
	wantRefused(t, r, 400, "DUPLICATE_REQUEST")
	if r.text("message") != duplicateTransactionID {
		t.Errorf("message: got %q", r.text("message"))
	}
	if got := len(w.sim.Transactions()); got != 1 {
		t.Errorf("got %d transactions, want 1", got)
	}
	o := w.asOther()
	wantStatus(t, o.pay(payment(o.token("4111111111111111"), "C", "10.00", true, withTransactionID("01XX1"))), 201, "AUTHORIZED")
	w.clock.add(61 * 24 * time.Hour)
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "B", "10.00", true, withTransactionID("01XX1"))), 201, "AUTHORIZED")
	elsewhere := newWorld(t)
	for range 2 {
		wantStatus(t, elsewhere.pay(payment(elsewhere.token("4111111111111111"), "A", "10.00", true, withTransactionID("1"))), 201, "AUTHORIZED")
	}
}

func TestDuplicateCodeBlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.DuplicateCodeBlock = true })
	wantStatus(t, w.pay(payment(w.token("4000000000000002"), "INV", "10.00", true)), 201, "DECLINED")
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "INV", "10.00", true)), 201, "AUTHORIZED")
	wantRefused(t, w.pay(payment(w.token("4111111111111111"), "INV", "10.00", true)), 400, "DUPLICATE_REQUEST")
	w.clock.add(16 * time.Minute)
	wantStatus(t, w.pay(payment(w.token("4111111111111111"), "INV", "10.00", true)), 201, "AUTHORIZED")
}

func TestPayerAuthentication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ask := func(number, action, id string) response {
		return w.pay(payment(w.token(number), "3DS", "10.00", true, func(p object) {
			p["processingInformation"].(object)["actionList"] = []string{action}
			p["consumerAuthenticationInformation"] = object{"authenticationTransactionId": id}
		}))
	}
	const enrol, validate = "CONSUMER_AUTHENTICATION", "VALIDATE_CONSUMER_AUTHENTICATION"
	challenge := ask("4000000000002503", enrol, "")
	wantStatus(t, challenge, 201, "PENDING_AUTHENTICATION")
	id := challenge.text("consumerAuthenticationInformation.authenticationTransactionId")
	wantStatus(t, ask("4000000000002503", validate, id), 201, "AUTHORIZED")
	wantRefused(t, ask("4000000000002503", validate, ""), 400, "MISSING_FIELD")
	wantStatus(t, ask("4000000000002370", enrol, ""), 201, "PENDING_AUTHENTICATION")
	wantStatus(t, ask("4000000000002370", validate, id), 201, "DECLINED")
	wantStatus(t, ask("4000000000002925", enrol, ""), 201, "DECLINED")
	wantStatus(t, ask("4000000000002701", enrol, ""), 201, "AUTHORIZED")
}

// Forty tries with one token at once charge exactly once.
func TestOneTokenManyPaymentsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.token("4111111111111111")
	var wg sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for i := range 40 {
		wg.Go(func() {
			r := w.pay(payment(token, fmt.Sprint("C", i), "10.00", true))
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
		})
	}
	wg.Wait()
	if statuses[201] != 1 || statuses[400] != 39 || len(w.sim.Transactions()) != 1 {
		t.Errorf("got %v and %d transactions, want one 201 and one transaction", statuses, len(w.sim.Transactions()))
	}
}

// start sends a payment and returns the channel with its outcome.
func (w *world) start(ctx context.Context, p object) <-chan error {
	req := w.request("POST", "/pts/v2/payments", toJSON(w.t, p)).WithContext(ctx)
	done := make(chan error, 1)
	go func() {
		res, err := w.server.Client().Do(req)
		if err == nil {
			err = errors.Join(res.Body.Close(), statusError(res.StatusCode))
		}
		done <- err
	}()
	return done
}

func statusError(status int) error {
	if status == http.StatusCreated {
		return nil
	}
	return fmt.Errorf("status %d", status)
}

func (w *world) rule(r faults.Rule) {
	w.t.Helper()
	if err := w.faults.Replace([]faults.Rule{r}); err != nil {
		w.t.Fatal(err)
	}
}

// await polls a condition that another goroutine brings about.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (w *world) held() bool { return len(w.faults.Rules()) == 1 && w.faults.Rules()[0].Held == 1 }

func TestHoldAfterHasMovedTheMoney(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.token("4111111111111111")
	w.rule(faults.Rule{ID: "h", Call: "cybersource.payments", Do: "hold_after", Times: 1})
	done := w.start(context.Background(), payment(token, "INV-9", "10.00", true))
	await(t, "the hold", w.held)
	res, err := w.server.Client().Get(w.server.URL + "/cybersource/transactions?code=INV-9")
	if r := decodeResponse(t, res, err); !strings.Contains(r.body, `"kind":"sale"`) {
		t.Errorf("transactions while held: got %s, want the sale", r.body)
	}
	select {
	case err := <-done:
		t.Fatalf("answered while held: %v", err)
	default:
	}
	w.faults.Release("h")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestHoldBeforeHasMovedNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.token("4111111111111111")
	w.rule(faults.Rule{ID: "h", Call: "cybersource.payments", Do: "hold_before", Times: 1})
	held := w.start(context.Background(), payment(token, "FIRST", "10.00", true))
	await(t, "the hold", w.held)
	if got := w.sim.Transactions(); len(got) != 0 {
		t.Fatalf("transactions while held: got %v, want none", got)
	}
	// The token goes to a later call meanwhile, so the held one is checked again.
	wantStatus(t, w.pay(payment(token, "SECOND", "10.00", true)), 201, "AUTHORIZED")
	w.faults.Release("h")
	if err := <-held; err == nil || err.Error() != "status 400" {
		t.Errorf("held call: got %v, want status 400", err)
	}
	if got := w.sim.Transactions(); len(got) != 1 || got[0].Code != "SECOND" {
		t.Errorf("transactions: got %v, want SECOND only", got)
	}
}

func TestLostAnswers(t *testing.T) {
	t.Parallel()
	for do, want := range map[string]int{"timeout_before": 0, "timeout_after": 1, "drop_before": 0, "drop_after": 1, "status": 0} {
		t.Run(do, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			token := w.token("4111111111111111")
			rule := faults.Rule{Call: "cybersource.payments", Do: do, Times: 1}
			if do == "status" {
				rule.Status = 503
			}
			w.rule(rule)
			ctx, giveUp := context.WithCancel(context.Background())
			defer giveUp()
			done := w.start(ctx, payment(token, "LOST", "10.00", true))
			if strings.HasPrefix(do, "timeout") {
				await(t, "the fault", func() bool { return w.faults.Rules()[0].Taken == 1 })
				await(t, "the effect", func() bool { return len(w.sim.Transactions()) == want })
				giveUp()
			}
			if err := <-done; err == nil {
				t.Error("got an answer, want none")
			}
			await(t, "the call log", func() bool {
				for _, c := range w.faults.Calls() {
					if c.Call == "cybersource.payments" && c.Ref == "LOST" {
						return true
					}
				}
				return false
			})
			if got := len(w.sim.Transactions()); got != want {
				t.Errorf("got %d transactions, want %d", got, want)
			}
		})
	}
}

func TestCallLogHasReferencesAndNoSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.approve("INV-LOG", "10.00", true)
	res, err := w.server.Client().Post(w.server.URL+"/pts/v2/payments", "application/json", strings.NewReader("{}"))
	decodeResponse(t, res, err)
	var got []string
	for _, c := range w.faults.Calls() {
		got = append(got, fmt.Sprint(c.Call, " ", c.Status, " ", c.Ref))
	}
	want := []string{"cybersource.sessions 201 INV-1001", "cybersource.payments 201 INV-LOG", "cybersource.payments 401 "}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnknownPathIs404(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.get("/pts/v2/nothing"); r.status != 404 || r.header.Get("v-c-correlation-id") == "" {
		t.Errorf("got %d %s", r.status, r.body)
	}
}
