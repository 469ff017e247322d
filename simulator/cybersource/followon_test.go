package cybersource

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCaptures(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth := w.approve("INV", "100.00", false)
	captures := "/pts/v2/payments/" + auth + "/captures"
	wantRefused(t, w.post(captures, `{}`), 400, "MISSING_FIELD")
	wantRefused(t, w.post(captures, order("0.00")), 400, "INVALID_DATA")
	wantRefused(t, w.post(captures, strings.Replace(order("10.00"), "ZAR", "USD", 1)), 400, "INVALID_DATA")
	wantRefused(t, w.post(captures, order("100.01")), 400, "EXCEEDS_AUTH_AMOUNT")
	first := w.post(captures, order("60.00"))
	wantStatus(t, first, 201, "PENDING")
	if first.text("clientReferenceInformation.code") != "INV" || first.at("_links.void") == nil || first.at("_links.refund") == nil {
		t.Errorf("capture: got %s", first.body)
	}
	wantRefused(t, w.post(captures, order("40.01")), 400, "EXCEEDS_AUTH_AMOUNT")
	wantStatus(t, w.post(captures, order("40.00")), 201, "PENDING")
	wantRefused(t, w.post(captures, order("0.01")), 400, "EXCEEDS_AUTH_AMOUNT")
	wantRefused(t, w.post("/pts/v2/payments/"+auth+"/reversals", reversal("100.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")

	sale := w.approve("SALE", "10.00", true)
	wantRefused(t, w.post("/pts/v2/payments/"+sale+"/captures", order("10.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	declined := w.pay(payment(w.token("4000000000000002"), "D", "10.00", false)).text("id")
	wantRefused(t, w.post("/pts/v2/payments/"+declined+"/captures", order("10.00")), 400, "MISSING_AUTH")
	wantRefused(t, w.post("/pts/v2/payments/7000000000000000000000/captures", order("10.00")), 400, "INVALID_DATA")
	wantRefused(t, w.asOther().post(captures, order("10.00")), 400, "INVALID_DATA")
}

func TestReversals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth := w.approve("INV", "100.00", false)
	path := "/pts/v2/payments/" + auth + "/reversals"
	wantRefused(t, w.post(path, `{}`), 400, "MISSING_FIELD")
	wantRefused(t, w.post(path, reversal("99.99")), 400, "INVALID_DATA")
	wantRefused(t, w.asOther().post(path, reversal("100.00")), 400, "INVALID_DATA")
	r := w.post(path, reversal("100.00"))
	wantStatus(t, r, 201, "REVERSED")
	if r.text("reversalAmountDetails.reversedAmount") != "100.00" || r.text("clientReferenceInformation.code") != "rev" {
		t.Errorf("reversal: got %s", r.body)
	}
	wantRefused(t, w.post(path, reversal("100.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	wantRefused(t, w.post("/pts/v2/payments/"+auth+"/captures", order("1.00")), 400, "AUTH_ALREADY_REVERSED")

	partial := w.pay(payment(w.token("4012888888881881"), "HALF", "100.00", true))
	half := partial.text("orderInformation.amountDetails.authorizedAmount")
	if half != "50.00" {
		t.Fatalf("authorizedAmount: got %q", half)
	}
	path = "/pts/v2/payments/" + partial.text("id") + "/reversals"
	wantRefused(t, w.post(path, reversal("100.00")), 400, "INVALID_DATA")
	wantStatus(t, w.post(path, reversal(half)), 201, "REVERSED")

	risky := w.pay(payment(w.token("4100000000000019"), "RISK", "100.00", true)).text("id")
	wantRefused(t, w.post("/pts/v2/payments/"+risky+"/captures", order("100.00")), 400, "INVALID_DATA")
	wantStatus(t, w.post("/pts/v2/payments/"+risky+"/reversals", reversal("100.00")), 201, "REVERSED")
	declined := w.pay(payment(w.token("4000000000000002"), "D", "10.00", false)).text("id")
	wantRefused(t, w.post("/pts/v2/payments/"+declined+"/reversals", reversal("10.00")), 400, "INVALID_DATA")
}

func TestRefunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sale := w.approve("SALE", "100.00", true)
	path := "/pts/v2/payments/" + sale + "/refunds"
	first := w.post(path, order("30.00"))
	wantStatus(t, first, 201, "PENDING")
	if first.text("refundAmountDetails.refundAmount") != "30.00" || first.at("_links.void") == nil {
		t.Errorf("refund: got %s", first.body)
	}
	wantRefused(t, w.post(path, order("70.01")), 400, "INVALID_DATA")
	wantStatus(t, w.post("/pts/v2/refunds/"+first.text("id")+"/voids", `{}`), 201, "VOIDED")
	wantStatus(t, w.post(path, order("100.00")), 201, "PENDING")
	wantRefused(t, w.post(path, order("0.01")), 400, "INVALID_DATA")

	auth := w.approve("AUTH", "100.00", false)
	wantRefused(t, w.post("/pts/v2/payments/"+auth+"/refunds", order("1.00")), 400, "INVALID_DATA")
	capture := w.post("/pts/v2/payments/"+auth+"/captures", order("80.00")).text("id")
	wantRefused(t, w.post("/pts/v2/captures/"+capture+"/refunds", order("80.01")), 400, "INVALID_DATA")
	wantRefused(t, w.post("/pts/v2/captures/"+sale+"/refunds", order("1.00")), 400, "INVALID_DATA")
	wantStatus(t, w.post("/pts/v2/captures/"+capture+"/refunds", order("80.00")), 201, "PENDING")

	voided := w.approve("VOID", "10.00", true)
	wantStatus(t, w.post("/pts/v2/payments/"+voided+"/voids", `{}`), 201, "VOIDED")
	wantRefused(t, w.post("/pts/v2/payments/"+voided+"/refunds", order("10.00")), 400, "CAPTURE_ALREADY_VOIDED")
	w.clock.add(181 * 24 * time.Hour)
	wantRefused(t, w.post("/pts/v2/captures/"+capture+"/refunds", order("1.00")), 400, "INVALID_DATA")
}

func TestVoids(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sale := w.approve("SALE", "100.00", true)
	r := w.post("/pts/v2/payments/"+sale+"/voids", `{"clientReferenceInformation":{"code":"V-1"}}`)
	wantStatus(t, r, 201, "VOIDED")
	if r.text("voidAmountDetails.voidAmount") != "100.00" || r.text("clientReferenceInformation.code") != "V-1" {
		t.Errorf("void: got %s", r.body)
	}
	wantRefused(t, w.post("/pts/v2/payments/"+sale+"/voids", `{}`), 400, "NOT_VOIDABLE")
	// The hold stays until it is reversed.
	wantStatus(t, w.post("/pts/v2/payments/"+sale+"/reversals", reversal("100.00")), 201, "REVERSED")

	auth := w.approve("AUTH", "100.00", false)
	wantRefused(t, w.post("/pts/v2/payments/"+auth+"/voids", `{}`), 400, "NOT_VOIDABLE")
	capture := w.post("/pts/v2/payments/"+auth+"/captures", order("100.00")).text("id")
	wantStatus(t, w.post("/pts/v2/captures/"+capture+"/voids", ``), 201, "VOIDED")
	wantStatus(t, w.post("/pts/v2/payments/"+auth+"/captures", order("100.00")), 201, "PENDING")

	late := w.approve("LATE", "10.00", true)
	if r := w.plain("/cybersource/advance", `{"settle":true}`); r.status != http.StatusOK {
		t.Fatalf("advance: got %d %s", r.status, r.body)
	}
	wantRefused(t, w.post("/pts/v2/payments/"+late+"/voids", `{}`), 400, "NOT_VOIDABLE")
	wantRefused(t, w.post("/pts/v2/payments/"+late+"/reversals", reversal("10.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	wantRefused(t, w.post("/pts/v2/payments/"+late+"/captures", order("10.00")), 400, "TRANSACTION_ALREADY_SETTLED")
	wantStatus(t, w.post("/pts/v2/payments/"+late+"/refunds", order("10.00")), 201, "PENDING")
	wantRefused(t, w.post("/pts/v2/payments/7000000000000000000000/voids", `{}`), 400, "INVALID_DATA")
}

func TestCancelByTransactionID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vpc)
	byID := func(id, total string) string {
		return fmt.Sprintf(`{"clientReferenceInformation":{"transactionId":%q},"reversalInformation":{"amountDetails":{"totalAmount":%q,"currency":"ZAR"},"reason":"timeout"}}`, id, total)
	}
	w.pay(payment(w.token("4111111111111111"), "A", "100.00", false, withTransactionID("T1")))
	w.pay(payment(w.token("4111111111111111"), "S", "100.00", true, withTransactionID("T2")))
	w.pay(payment(w.token("4000000000000002"), "D", "100.00", true, withTransactionID("T3")))
	w.clock.add(time.Minute)
	wantRefused(t, w.post("/pts/v2/reversals", reversal("100.00")), 400, "MISSING_FIELD")
	wantRefused(t, w.post("/pts/v2/reversals", byID("T9", "100.00")), 400, "INVALID_DATA")
	wantRefused(t, w.post("/pts/v2/reversals", byID("T3", "100.00")), 400, "INVALID_DATA")
	wantRefused(t, w.post("/pts/v2/reversals", byID("T2", "100.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")
	wantRefused(t, w.asOther().post("/pts/v2/reversals", byID("T1", "100.00")), 400, "INVALID_DATA")
	r := w.post("/pts/v2/reversals", byID("T1", "100.00"))
	wantStatus(t, r, 201, "REVERSED")
	if r.text("reversalAmountDetails.originalTransactionAmount") != "100.00" {
		t.Errorf("reversal: got %s", r.body)
	}
	wantRefused(t, w.post("/pts/v2/reversals", byID("T1", "100.00")), 400, "TRANSACTION_ALREADY_REVERSED_OR_SETTLED")

	wantRefused(t, w.post("/pts/v2/voids", `{}`), 400, "MISSING_FIELD")
	wantRefused(t, w.post("/pts/v2/voids", `{"clientReferenceInformation":{"transactionId":"T9"}}`), 400, "INVALID_DATA")
	wantRefused(t, w.post("/pts/v2/voids", `{"clientReferenceInformation":{"transactionId":"T1"}}`), 400, "NOT_VOIDABLE")
	wantStatus(t, w.post("/pts/v2/voids", `{"clientReferenceInformation":{"transactionId":"T2"}}`), 201, "VOIDED")
	wantStatus(t, w.post("/pts/v2/reversals", byID("T2", "100.00")), 201, "REVERSED")
}

func TestReview(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	held := func(code string) string {
		r := w.pay(payment(w.token("4000000000009235"), code, "100.00", true))
		wantStatus(t, r, 201, "AUTHORIZED_PENDING_REVIEW")
		return r.text("id")
	}
	kept, sent := held("KEPT"), held("SENT")
	wantRefused(t, w.post("/pts/v2/payments/"+kept+"/captures", order("100.00")), 400, "INVALID_DATA")
	wantRefused(t, w.post("/pts/v2/payments/"+kept+"/reversals", reversal("100.00")), 400, "INVALID_DATA")
	if r := w.plain("/cybersource/advance", toJSON(t, object{"accept": []string{kept}, "reject": []string{sent}, "index": true})); r.status != http.StatusOK {
		t.Fatalf("advance: got %d %s", r.status, r.body)
	}
	if r := w.plain("/cybersource/advance", toJSON(t, object{"accept": []string{kept}})); r.status != http.StatusNotFound {
		t.Errorf("accept again: got %d, want 404", r.status)
	}
	if r := w.get("/tss/v2/transactions/" + kept); r.text("applicationInformation.status") != "AUTHORIZED" || r.text("applicationInformation.reasonCode") != "100" {
		t.Errorf("accepted: got %s", r.body)
	}
	if r := w.get("/tss/v2/transactions/" + sent); r.text("applicationInformation.status") != "REJECTED" {
		t.Errorf("rejected: got %s", r.body)
	}
	wantStatus(t, w.post("/pts/v2/payments/"+kept+"/refunds", order("100.00")), 201, "PENDING")
	wantRefused(t, w.post("/pts/v2/payments/"+sent+"/captures", order("100.00")), 400, "INVALID_DATA")
	wantStatus(t, w.post("/pts/v2/payments/"+sent+"/reversals", reversal("100.00")), 201, "REVERSED")
}

// Whatever runs at once, no more is captured than held and no more refunded than captured.
func TestFollowOnsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	auth := w.approve("INV", "100.00", false)
	var wg sync.WaitGroup
	for range 15 {
		wg.Go(func() { w.post("/pts/v2/payments/"+auth+"/captures", order("15.00")) })
		wg.Go(func() { w.post("/pts/v2/payments/"+auth+"/reversals", reversal("100.00")) })
	}
	wg.Wait()
	kinds := map[string]int{}
	for _, tr := range w.sim.Transactions() {
		kinds[tr.Kind]++
	}
	if reversed := kinds[KindReversal] == 1 && kinds[KindCapture] == 0; !reversed && (kinds[KindCapture] != 6 || kinds[KindReversal] != 0) {
		t.Errorf("got %v, want six captures or one reversal", kinds)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	sale := w.approve("INV-1001", "149.99", true)
	w.pay(payment(w.token("4000000000000002"), "INV-1002", "10.00", true))
	w.clock.add(time.Second)
	refund := w.post("/pts/v2/payments/"+sale+"/refunds", order("9.99")).text("id")
	search := func(query string) response {
		return w.post("/tss/v2/searches", toJSON(t, object{"save": "false", "name": "t", "timezone": "Africa/Johannesburg", "query": query, "sort": "submitTimeUtc:desc"}))
	}
	const all = "submitTimeUtc:[NOW/DAY-1DAYS TO NOW/DAY+1DAY}"
	if r := search(all); r.status != 201 || r.at("totalCount") != 0.0 {
		t.Errorf("before the delay: got %d %s, want nothing found", r.status, r.body)
	}
	if r := w.get("/tss/v2/transactions/" + sale); r.status != 404 {
		t.Errorf("details before the delay: got %d, want 404", r.status)
	}
	w.clock.add(time.Minute)
	codes := func(r response) []string {
		rows, _ := r.at("_embedded.transactionSummaries").([]any)
		list := []string{}
		for _, row := range rows {
			m := response{json: row.(map[string]any)}
			list = append(list, m.text("clientReferenceInformation.code"))
		}
		return list
	}
	for query, want := range map[string][]string{
		all: {"INV-1001", "INV-1002", "INV-1001"},
		"clientReferenceInformation.code:INV-1002":                                                         {"INV-1002"},
		"clientReferenceInformation.code:INV-1002 AND " + all:                                              {"INV-1002"},
		"clientReferenceInformation.code:(INV-1002 OR INV-9)":                                              {"INV-1002"},
		`clientReferenceInformation.code:"INV-1001" AND orderInformation.amountDetails.totalAmount:149.99`: {"INV-1001"},
		"clientReferenceInformation.code:INV-1002 OR id:" + refund:                                         {"INV-1001", "INV-1002"},
		"(clientReferenceInformation.code:INV-1002 OR id:" + refund + ") AND id:" + refund:                 {"INV-1001"},
		"submitTimeUtc:[NOW-61SECONDS TO NOW-60SECONDS}":                                                   {"INV-1002", "INV-1001"},
		"submitTimeUtc:[NOW-61SECONDS TO NOW-60SECONDS]":                                                   {"INV-1001", "INV-1002", "INV-1001"},
		"submitTimeUtc:[1768472430000 TO 1768472430000]":                                                   {"INV-1002", "INV-1001"},
		"submitTimeUtc:{2026-01-15T10:20:30Z TO *]":                                                        {"INV-1001"},
		"submitTimeUtc:[NOW/DAY-3DAYS TO NOW/DAY}":                                                         {},
		"merchantId:" + other:                    {},
		"clientReferenceInformation.code:INV-1*": {"INV-1001", "INV-1002", "INV-1001"},
	} {
		if r := search(query); r.status != 201 || !slices.Equal(codes(r), want) {
			t.Errorf("%s: got %d %v, want %v", query, r.status, codes(r), want)
		}
	}
	for _, bad := range []string{"nothing:x", "id", "id:", "id:1 AND", "submitTimeUtc:[NOW TO", "submitTimeUtc:[NOW/FORTNIGHT TO NOW]", "(id:1", "id:1 id:2", "id:[1 TO 2]", `id:"1`, "id:(1 2)"} {
		if r := search(bad); r.status != 400 {
			t.Errorf("%q: got %d, want 400", bad, r.status)
		}
	}

	r := search("id:" + sale)
	row := response{json: r.at("_embedded.transactionSummaries").([]any)[0].(map[string]any)}
	var names []string
	for _, a := range row.at("applicationInformation.applications").([]any) {
		names = append(names, a.(map[string]any)["name"].(string))
	}
	if !slices.Equal(names, []string{"ics_auth", "ics_bill"}) || row.text("applicationInformation.rFlag") != "SOK" || row.text("paymentInformation.card.suffix") != "1111" {
		t.Errorf("row of a sale: got %v", row.json)
	}
	again := w.get("/tss/v2/searches/" + r.text("searchId"))
	if again.status != 200 || again.at("totalCount") != 1.0 {
		t.Errorf("saved search: got %d %s", again.status, again.body)
	}
	details := w.get("/tss/v2/transactions/" + refund)
	if details.status != 200 || details.text("rootId") != sale || details.text("submitTimeUTC") != "2026-01-15T10:20:31Z" {
		t.Errorf("details: got %d %s", details.status, details.body)
	}
	if r := w.get("/tss/v2/transactions/" + sale); r.text("orderInformation.amountDetails.refundBalance") != "140.00" {
		t.Errorf("refundBalance: got %s", r.body)
	}
	o := w.asOther()
	for _, path := range []string{"/tss/v2/transactions/" + sale, "/tss/v2/searches/" + r.text("searchId")} {
		if r := o.get(path); r.status != 404 {
			t.Errorf("%s by another merchant: got %d, want 404", path, r.status)
		}
	}
}

func TestSearchPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SearchDelay = -1 })
	for i := range 5 {
		w.approve(fmt.Sprint("P", i), "10.00", true)
	}
	r := w.post("/tss/v2/searches", `{"query":"clientReferenceInformation.code:P*","sort":"clientReferenceInformation.code:asc","offset":3,"limit":5}`)
	if r.status != 201 || r.at("count") != 2.0 || r.at("totalCount") != 5.0 {
		t.Errorf("got %d %s, want 2 of 5", r.status, r.body)
	}
	for _, bad := range []string{`{"query":"id:1"}`, `{"sort":"id:asc"}`, `{"query":"id:1","sort":"x:asc"}`, `{"query":"id:1","sort":"id:asc","limit":2501}`, `{"query":"id:1","sort":"id:asc","offset":-1}`, `{"query":"id:1","sort":"id:asc","timezone":"Nowhere"}`} {
		if r := w.post("/tss/v2/searches", bad); r.status != 400 {
			t.Errorf("%s: got %d, want 400", bad, r.status)
		}
	}
}

func TestErrorThatChargedIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.pay(payment(w.token("5105105105105100"), "LOST", "10.00", true))
	wantStatus(t, r, 502, "SERVER_ERROR")
	w.sim.Index()
	d := w.get("/tss/v2/transactions/" + r.text("id"))
	if d.status != 200 || d.text("applicationInformation.status") != "AUTHORIZED" || d.text("applicationInformation.rCode") != "1" {
		t.Errorf("got %d %s, want an approved sale", d.status, d.body)
	}
	nothing := w.pay(payment(w.token("4000000000000119"), "NONE", "10.00", true))
	w.sim.Index()
	if d := w.get("/tss/v2/transactions/" + nothing.text("id")); d.text("applicationInformation.rCode") != "-1" {
		t.Errorf("got %s, want rCode -1", d.body)
	}
	wantStatus(t, w.post("/pts/v2/payments/"+r.text("id")+"/voids", `{}`), 201, "VOIDED")
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"id:1", "clientReferenceInformation.code:INV-1001 AND submitTimeUtc:[NOW/DAY-1DAYS TO NOW/DAY+1DAY}", "(id:(1 OR 2))", `id:"x" OR id:y`, "((((", "submitTimeUtc:{* TO *]"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseQuery(text, time.Unix(1768472430, 0), time.UTC)
		if (m == nil) == (err == nil) {
			t.Fatalf("%q: got a matcher and error %v", text, err)
		}
		if m != nil {
			m(&record{Transaction: Transaction{Currency: "ZAR"}, card: card{Number: "4111111111111111"}})
		}
	})
}
