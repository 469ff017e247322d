package meta

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"paythread/simulator/faults"
)

func TestSendBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		own := c.Numbers[0]
		own.PhoneNumberID, own.WABAID, own.DisplayNumber = "PN3", "WABA3", "+15550783883"
		c.Numbers = append(c.Numbers, own)
	})
	w.hook.answer = func(n int) int {
		if n == 1 {
			return 503
		}
		return 200
	}
	var sent Sent
	if err := json.Unmarshal([]byte(w.control(t, "batches", `{"number":"PN1","updates":1000,"bytes":3000000,"spoil":true,"twice":true}`)), &sent); err != nil {
		t.Fatal(err)
	}
	await(t, "the redelivery", func() bool { return len(w.hook.all()) == 2 })
	posts := w.hook.all()
	if string(posts[0].body) != string(posts[1].body) {
		t.Error("the redelivery has other bytes")
	}
	if n := len(posts[0].body); sent.Status != 503 || sent.Bytes != n || n < 2_900_000 || n > longestPost {
		t.Errorf("got status %d, %d bytes of %d", sent.Status, n, sent.Bytes)
	}
	entries := posts[0].entries(t)
	if len(entries) != 2 || entries[0].ID != "WABA1" || entries[1].ID != "WABA3" || len(entries[0].Changes) != 2 {
		t.Fatalf("entries: got %d", len(entries))
	}
	seen := map[string]int{}
	bad := 0
	for _, en := range entries {
		for _, c := range en.Changes {
			var v value
			if json.Unmarshal(c.Value, &v) != nil {
				bad++
				continue
			}
			if len(v.Contacts) != 500 {
				t.Errorf("%s: %d contacts", en.ID, len(v.Contacts))
			}
			for _, m := range v.Messages {
				seen[m.ID]++
			}
		}
	}
	if bad != 1 || len(seen) != 1000 || len(sent.IDs) != 1000 || seen[sent.IDs[0]] != 2 || seen[sent.IDs[1]] != 1 {
		t.Errorf("got %d bad elements, %d messages, the first %d times", bad, len(seen), seen[sent.IDs[0]])
	}
	if got := w.code(t, strings.ReplaceAll(textTo, customer, batchCustomer(0))); got != 0 {
		t.Errorf("an answer to a batch's customer: got %d", got)
	}
}

func TestLiveBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Batch, c.SpoilEvery, c.MessagesPerSecond, c.PairBurst = time.Hour, 1, -1, -1
	})
	if err := w.set.Replace([]faults.Rule{
		{Call: CallWebhookMessage, Do: faults.Duplicate, Skip: 1, Times: 1},
		{Call: CallWebhookMessage, Do: faults.Drop, Skip: 1, Times: 1},
	}); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 4 {
		ids = append(ids, w.say(t, Said{Text: strconv.Itoa(i)}))
	}
	w.empty(t.Context(), w.destination(&w.cfg.Numbers[0])) // as when its time has come
	entries := w.hook.all()[0].entries(t)
	if len(entries) != 1 || len(entries[0].Changes) != 2 {
		t.Fatalf("got %s", w.hook.all()[0].body)
	}
	var v value
	if err := json.Unmarshal(entries[0].Changes[0].Value, &v); err == nil {
		t.Error("the batch has no bad element")
	}
	if err := json.Unmarshal(entries[0].Changes[1].Value, &v); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range v.Messages {
		got = append(got, m.ID)
	}
	// The second rule is asked for what the first one leaves: 0, 2, 3.
	if want := []string{ids[0], ids[1], ids[1], ids[3]}; !slices.Equal(got, want) {
		t.Errorf("messages: got %v, want %v", got, want)
	}
	if len(v.Contacts) != 1 {
		t.Errorf("contacts: got %d, want one for one customer", len(v.Contacts))
	}
	if n := len(w.phones.accepted); n != 4 {
		t.Errorf("ticks: got %d, want 4", n)
	}
}

func TestBatchesGoWhenTheirTimeHasCome(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Batch = time.Millisecond })
	w.send(t, templateTo)
	w.awaitAnyOrder(t, "sent", "delivered")
}

func TestFullBatchGoesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Batch = time.Hour })
	for range mostUpdates {
		w.say(t, Said{Text: "hi"})
	}
	await(t, "the full box", func() bool { return len(w.hook.all()) >= 1 })
	if n := len(w.hook.values(t)[0].Messages); n != mostUpdates {
		t.Errorf("messages: got %d, want %d", n, mostUpdates)
	}
}

func TestStatusBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.StatusFirstEvery = 2 })
	release := make(chan struct{})
	w.hook.answer = func(int) int { <-release; return http.StatusOK }
	w.send(t, templateTo) // the first is answered although no webhook is
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		w.send(t, templateTo)
	}()
	await(t, "both first statuses", func() bool { return len(w.hook.all()) == 2 })
	select {
	case <-answered:
		t.Error("answered before the status was taken")
	default:
	}
	close(release)
	<-answered
}

func TestPrices(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		at       time.Time
		body     string
		sends    int
		noMethod bool
		want     []string
	}{
		{"service, a free month", time.Date(2026, 9, 30, 12, 0, 0, 0, time.UTC), textTo, 3, true, []string{"free_customer_service service", "free_customer_service service", "free_customer_service service"}},
		{"service since October", time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), textTo, 3, false, []string{"free_customer_service service", "free_customer_service service", "regular service"}},
		{"nobody pays", time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC), textTo, 3, true, []string{"free_customer_service service", "free_customer_service service", "131042"}},
		{"utility in the window, before", time.Date(2026, 9, 30, 12, 0, 0, 0, time.UTC), templateTo, 1, false, []string{"free_customer_service utility"}},
		{"utility in the window, since", time.Date(2026, 10, 2, 0, 0, 0, 0, time.UTC), templateTo, 1, false, []string{"regular utility"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(c *Config) { c.FreeMessages, c.Numbers[0].NoPaymentMethod = 2, tc.noMethod })
			w.clock.at = tc.at
			w.say(t, Said{Text: "hi"})
			var got []string
			for range tc.sends {
				id := w.send(t, tc.body)
				var first statusReport
				await(t, "its first status", func() bool {
					i := slices.IndexFunc(w.hook.reports(t), func(st statusReport) bool { return st.ID == id })
					if i >= 0 {
						first = w.hook.reports(t)[i]
					}
					return i >= 0
				})
				switch {
				case first.Errors != nil:
					got = append(got, strconv.Itoa(first.Errors[0].Code))
				case first.Pricing.Billable != (first.Pricing.Type == "regular"):
					t.Errorf("pricing: got %+v", first.Pricing)
				default:
					got = append(got, first.Pricing.Type+" "+first.Pricing.Category)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestSkippedDeliveredPutsThePriceOnRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.SkipDeliveredEvery, c.Numbers[0].PayloadVersion = 1, PayloadV23 })
	id := w.send(t, templateTo)
	await(t, "the phone has it", func() bool { return len(w.phones.got()) == 1 })
	w.Read([]string{id})
	w.awaitStatuses(t, "sent", "read")
	if st := w.hook.reports(t)[1]; st.Pricing == nil || st.Conversation == nil || st.Conversation.Expiration != "" {
		t.Errorf("read: got %+v", st)
	}
}

func TestMessagesExpireWithoutAWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Templates[0].TTL = time.Hour })
	off := w.phones.Handset(customer)
	off.Reachable = false
	w.phones.set(off)
	w.send(t, templateTo)
	w.send(t, strings.ReplaceAll(strings.ReplaceAll(plainTo, "NAME", "plain"), "LANG", "en"))
	await(t, "both wait", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.waiting[customer]) == 2 })
	w.clock.add(time.Hour + time.Second)
	off.Reachable = true
	w.phones.set(off)
	w.Reachable(customer)
	w.awaitStatuses(t, "sent", "sent", "delivered")
	if d := w.phones.got(); len(d) != 1 || d[0].Text != "Thank you." {
		t.Errorf("phone: got %+v, want the one that lives 30 days", d)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.messages) != 1 {
		t.Errorf("kept %d messages, want the delivered one", len(w.messages))
	}
}

const plainTo = `{"messaging_product":"whatsapp","to":"+16505551234","type":"template","template":{"name":"NAME","language":{"code":"LANG"}}}`

func TestRateStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.MessagesPerSecond, c.RateStatus = 1, 429 })
	w.send(t, templateTo)
	status, body, header := w.call(t, "POST", "/meta/v25.0/PN1/messages", "good", templateTo)
	if status != 429 || !strings.Contains(body, `"code":130429`) || !strings.Contains(header.Get("X-App-Usage"), `"call_count":100`) ||
		!strings.Contains(header.Get("X-Business-Use-Case-Usage"), `{"WABA1":[{"type":"whatsapp","call_count":100`) {
		t.Errorf("got %d %s, %v", status, body, header)
	}
}
