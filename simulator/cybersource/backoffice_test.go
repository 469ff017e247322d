package cybersource

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestBackOffice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SearchDelay = -1 })
	act := func(action, id, amount string) Transaction {
		t.Helper()
		made, err := w.sim.BackOffice(action, id, amount)
		if err != nil {
			t.Fatalf("%s: %v", action, err)
		}
		return made
	}
	auth := w.approve("AUTH", "100.00", false)
	first := act("capture", auth, "40.00")
	if first.Kind != KindCapture || first.Amount != "40.00" || first.Code != "AUTH" || first.ParentID != auth || first.RootID != auth || !first.BackOffice {
		t.Errorf("capture: got %+v", first)
	}
	rest := act("capture", auth, "")
	back := act("refund", rest.ID, "")
	if rest.Amount != "60.00" || back.Amount != "60.00" || back.RootID != auth || back.ParentID != rest.ID {
		t.Errorf("the rest and its refund: got %+v, %+v", rest, back)
	}
	if voided := act("void", first.ID, ""); voided.Kind != KindVoid || voided.Amount != "40.00" {
		t.Errorf("void: got %+v", voided)
	}
	// It is found as the merchant's own operations are, under the payment's reference.
	r := w.post("/tss/v2/searches", `{"query":"clientReferenceInformation.code:AUTH AND submitTimeUtc:[NOW/DAY-1DAYS TO NOW/DAY+1DAY}","sort":"submitTimeUtc:asc"}`)
	if total, _ := r.at("totalCount").(float64); total != 5 {
		t.Errorf("rows in search: got %v", total)
	}
	details := w.get("/tss/v2/transactions/" + back.ID)
	related, _ := details.at("_links.relatedTransactions").([]any)
	if details.text("rootId") != auth || len(related) != 1 || related[0].(map[string]any)["href"] != "/tss/v2/transactions/"+rest.ID {
		t.Errorf("details: got %s", details.body)
	}
	act("reversal", w.approve("HOLD", "5.00", false), "")
	review := w.pay(payment(w.token("4000000000009235"), "REVIEW", "10.00", true)).text("id")
	if got := act("accept", review, ""); got.Kind != KindSale || got.Review != "accepted" {
		t.Errorf("accept: got %+v", got)
	}

	var refused *RefusedError
	for _, tc := range []struct{ action, id, amount, reason string }{
		{"accept", review, "", "INVALID_DATA"}, {"reversal", auth, "", "TRANSACTION_ALREADY_REVERSED_OR_SETTLED"},
		{"capture", auth, "41.00", "EXCEEDS_AUTH_AMOUNT"}, {"refund", auth, "", "INVALID_DATA"}, {"void", auth, "", "NOT_VOIDABLE"}, {"charge", auth, "", "NOT_SUPPORTED"},
	} {
		if _, err := w.sim.BackOffice(tc.action, tc.id, tc.amount); !errors.As(err, &refused) || refused.Reason != tc.reason {
			t.Errorf("%s: got %v, want %s", tc.action, err, tc.reason)
		}
	}
	if _, err := w.sim.BackOffice("void", "1", ""); !errors.Is(err, ErrUnknownTransaction) {
		t.Errorf("an unknown id: got %v", err)
	}
}

func TestBackOfficeOverHTTP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.approve("SALE", "10.00", true)
	r := w.plain("/cybersource/back-office", `{"action":"refund","id":"`+id+`","amount":"4.00"}`)
	if r.status != 200 || r.text("kind") != KindRefund || r.text("parentId") != id {
		t.Errorf("got %d %s", r.status, r.body)
	}
	for body, want := range map[string]int{
		`{"action":"refund","id":"` + id + `","amount":"7.00"}`: 409, `{"action":"refund","id":"1"}`: 404, `{"id":"1"}`: 400, `{"action":"void"}`: 400, `{"x":1}`: 400,
	} {
		if r := w.plain("/cybersource/back-office", body); r.status != want {
			t.Errorf("%s: got %d %s, want %d", body, r.status, r.body, want)
		}
	}
	voided := w.approve("VOID", "10.00", true)
	w.plain("/cybersource/back-office", `{"action":"void","id":"`+voided+`"}`)
	if got := w.transactionsOf("VOID"); len(got) != 2 || !got[0].Voided || got[0].Reversed || got[1].RootID != voided {
		t.Errorf("the books: got %+v", got)
	}
}

// TestAuditorListsTwoDays: a search over a range of time finds everything in it once, page by page,
// however the times are written.
func TestAuditorListsTwoDays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, vpc)
	var ids []string
	for i := range 7 {
		ids = append(ids, w.pay(payment(w.token("4111111111111111"), fmt.Sprintf("A-%d", i), "100.00", false, withTransactionID(fmt.Sprintf("t%d", i)))).text("id"))
		w.clock.add(8 * time.Hour)
	}
	cancelled := w.post("/pts/v2/reversals", `{"clientReferenceInformation":{"transactionId":"t5"},"reversalInformation":{"amountDetails":{"totalAmount":"100.00","currency":"ZAR"},"reason":"timeout"}}`)
	wantStatus(t, cancelled, 201, "REVERSED")
	w.clock.add(time.Hour)
	now := w.clock.now()
	const day = 24 * time.Hour
	for name, query := range map[string]string{
		"epoch milliseconds": fmt.Sprintf("submitTimeUtc:[%d TO %d}", now.Add(-2*day).UnixMilli(), now.UnixMilli()),
		"RFC 3339":           fmt.Sprintf("submitTimeUtc:[%s TO %s}", now.Add(-2*day).Format(time.RFC3339), now.Format(time.RFC3339)),
		"date maths":         "submitTimeUtc:[NOW-2DAYS TO NOW}",
		"with more":          "submitTimeUtc:[NOW-2DAYS TO NOW} AND (orderInformation.amountDetails.currency:ZAR OR merchantId:nobody)",
		"two ranges":         fmt.Sprintf("(submitTimeUtc:[NOW-2DAYS TO NOW-1DAYS} OR submitTimeUtc:[NOW-1DAYS TO %d])", now.UnixMilli()),
	} {
		var got []string
		for total := 1; len(got) < total; {
			r := w.post("/tss/v2/searches", toJSON(t, object{"query": query, "sort": "submitTimeUtc:asc", "offset": len(got), "limit": 3, "timezone": "GMT"}))
			count, _ := r.at("totalCount").(float64)
			rows, _ := r.at("_embedded.transactionSummaries").([]any)
			if r.status != 201 || len(rows) == 0 {
				t.Fatalf("%s: got %d %s", name, r.status, r.body)
			}
			total = int(count)
			for _, row := range rows {
				got = append(got, row.(map[string]any)["id"].(string))
			}
		}
		// The first payments are older than two days: the seventh is 9 hours old.
		if want := append(slices.Clone(ids[2:]), cancelled.text("id")); !slices.Equal(got, want) {
			t.Errorf("%s: got %d rows, want %d", name, len(got), len(want))
		}
	}
	details := w.get("/tss/v2/transactions/" + cancelled.text("id"))
	if details.text("rootId") != ids[5] || !strings.Contains(details.body, `"ics_timeout_auth_reversal"`) {
		t.Errorf("the time-out reversal: got %s", details.body)
	}
}
