package checkout_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/checkout"
	"paythread/checkout/platforms"
	"paythread/conversations"
)

// refusals notes which limits the page said that somebody met.
type refusals struct {
	mu sync.Mutex
	of []string
}

func (r *refusals) note(limit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of = append(r.of, limit)
}

func (r *refusals) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { r.of = nil }()
	return r.of
}

// TestDeclinesOfOneCustomerAreBounded goes through many payment requests of one
// customer, as somebody with a list of stolen cards would.
func TestDeclinesOfOneCustomerAreBounded(t *testing.T) {
	t.Parallel()
	var refused refusals
	h := newHouse(t, func(_ *house, o *checkout.Options) { o.Refused = refused.note })
	h.platform.answer = declined
	n, charges := 0, int64(0)
	request := func() string {
		n++
		id := fmt.Sprintf("r%d", n)
		r := newRequest(id)
		now := h.store.Now()
		end := now.Add(2 * time.Hour)
		r.PayBy, r.ContactID = &end, "contact-r1"
		r.Contexts = []conversations.CaptureContext{{KeyID: "key-0", Key: "{}", ExpiresAt: end}}
		if n == 1 {
			h.add(id, func(first *conversations.PaymentRequest) { *first = *r })
			return id
		}
		h.store.mu.Lock()
		defer h.store.mu.Unlock()
		h.store.requests[id] = r
		return id
	}
	wait := time.Duration(0)
	for try := 1; try <= 10; try++ {
		id := request()
		if wait > 0 {
			h.store.advance(wait - time.Second)
			a := h.do(t, h.press(t, id, "charge", `{"transient_token":"token-early"}`))
			var got called
			if err := json.Unmarshal([]byte(a.body), &got); err != nil {
				t.Fatal(err)
			}
			if a.status != http.StatusTooManyRequests || got.Code != "too_soon" || got.Screen != "too_soon" || got.CanRetry || a.header.Get("Retry-After") != "1" ||
				got.RetryAt == nil || !got.RetryAt.Equal(h.store.Now().Add(time.Second)) || got.Wait != "5 seconds" {
				t.Fatalf("try %d, too soon: %d, Retry-After %q, %+v", try, a.status, a.header.Get("Retry-After"), got.State)
			}
			// Nobody types a card for nothing: the form is refused too.
			if status, got := h.call(t, id, "context", "{}"); status != http.StatusTooManyRequests || got.Screen != "too_soon" {
				t.Fatalf("try %d, a form too soon: %d %+v", try, status, got)
			}
			if got := refused.take(); !slices.Equal(got, []string{"contact", "contact"}) {
				t.Errorf("try %d: counted %v", try, got)
			}
			h.store.advance(time.Second)
		}
		status, got := h.call(t, id, "charge", fmt.Sprintf(`{"transient_token":"token-%d"}`, try))
		if charges++; status != 200 || got.Attempt == nil || h.platform.charges.Load() != charges {
			t.Fatalf("try %d: %d %+v with %d charges", try, status, got.State, h.platform.charges.Load())
		}
		if try > 3 {
			wait = min(10*time.Second<<(try-4), time.Hour)
		}
	}
	id := request()
	h.store.advance(2 * time.Hour)
	h.store.edit(id, func(r *conversations.PaymentRequest) {
		end := h.store.now.Add(time.Hour)
		r.PayBy = &end
	})
	for _, call := range []string{"charge", "context"} {
		if status, got := h.call(t, id, call, `{"transient_token":"token-11"}`); status != http.StatusTooManyRequests || got.Code != "too_many_declines" || got.Screen != "too_many" || got.CanRetry || got.RetryAt != nil {
			t.Errorf("%s beyond the most declines: %d %s %+v", call, status, got.Code, got.State)
		}
	}
	if got := refused.take(); !slices.Equal(got, []string{"contact", "contact"}) || h.platform.charges.Load() != charges {
		t.Errorf("counted %v, %d charges", got, h.platform.charges.Load())
	}
	if log := h.log.String(); strings.Count(log, "refused by a limit") != 14 || !strings.Contains(log, "limit=contact") || !strings.Contains(log, "payment_request_id="+id) || !strings.Contains(log, "merchant_id=acme") {
		t.Errorf("the log says:\n%s", log)
	}
}

func TestTriesOfAnAddressEnd(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[conversations.Outcome]string{
		conversations.OutcomeCaptured: "given back", conversations.OutcomeAuthorized: "given back", conversations.OutcomeInReview: "given back",
		conversations.OutcomeNotTaken: "given back", conversations.OutcomeUnknown: "given back",
		conversations.OutcomeDeclined: "declined", conversations.OutcomePartial: "declined", conversations.OutcomeRiskDeclined: "declined",
		conversations.OutcomeAuthenticationPending: "declined",
	} {
		t.Run(string(outcome), func(t *testing.T) {
			t.Parallel()
			var told []string
			h := newHouse(t, func(_ *house, o *checkout.Options) {
				o.Charged = func(platform string, r conversations.Result) { told = append(told, platform+" "+string(r.Outcome)) }
			})
			h.add("r1", opened)
			h.platform.answer = func(platforms.ChargeRequest) conversations.Result { return conversations.Result{Outcome: outcome} }
			h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)
			if got := h.store.counted(); len(got) != 2 || got[1] != want {
				t.Errorf("counted %v, want it %s", got, want)
			}
			if want := []string{"fake " + string(outcome)}; !slices.Equal(told, want) {
				t.Errorf("the charge was told as %v, want %v", told, want)
			}
			// A press that charges nothing is given back too.
			h.call(t, "r1", "charge", `{"transient_token":"token-1"}`)
			if got := h.store.counted(); got[len(got)-1] != "given back" && len(got) > 2 {
				t.Errorf("the second press: counted %v", got)
			}
		})
	}
	t.Run("forged token", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.add("r1", opened)
		h.call(t, "r1", "charge", `{"transient_token":"forged"}`)
		if got := h.store.counted(); len(got) != 2 || got[1] != "given back" {
			t.Errorf("counted %v", got)
		}
	})
}

func TestAddressBeyondItsLimit(t *testing.T) {
	t.Parallel()
	var refused refusals
	h := newHouse(t, func(_ *house, o *checkout.Options) { o.Refused = refused.note })
	h.add("r1", opened)
	h.store.refuseTry = conversations.Refused(conversations.ReasonTooManyTries, "too many payments were tried from this address")
	for _, call := range []string{"charge", "context"} {
		if status, got := h.call(t, "r1", call, `{"transient_token":"token-1"}`); status != http.StatusTooManyRequests || got.Code != "too_many_tries" || got.Screen != "too_many" || got.CanRetry {
			t.Errorf("%s answered %d %s %+v", call, status, got.Code, got.State)
		}
	}
	if got := refused.take(); !slices.Equal(got, []string{"address", "address"}) {
		t.Errorf("counted %v", got)
	}
	wantEvents(t, h)
	if n := h.platform.charges.Load() + h.platform.contexts.Load(); n != 0 {
		t.Errorf("the platform was called %d times", n)
	}
	h.store.refuseTry = conversations.Unavailable(errors.New("connection refused"))
	if status, _ := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != http.StatusServiceUnavailable || h.platform.charges.Load() != 0 {
		t.Errorf("while nothing can be counted it answered %d, with %d charges", status, h.platform.charges.Load())
	}
	// Behind a press whose charge is under way there is nothing to refuse.
	h.store.refuseTry = conversations.Refused(conversations.ReasonTooSoon, "wait")
	h.store.edit("r1", inFlight(conversations.AttemptSending))
	if status, got := h.call(t, "r1", "charge", `{"transient_token":"token-1"}`); status != 200 || got.Screen != "processing" {
		t.Errorf("behind another press it answered %d %s", status, got.Screen)
	}
}

// TestLastTryIsCounted: the limit of one payment request.
func TestLastTryIsCounted(t *testing.T) {
	t.Parallel()
	var refused refusals
	h := newHouse(t, func(_ *house, o *checkout.Options) { o.Refused = refused.note })
	h.add("r1", opened)
	h.platform.answer = declined
	for try := range 4 {
		_, got := h.call(t, "r1", "charge", fmt.Sprintf(`{"transient_token":"token-%d"}`, try))
		want := []string(nil)
		if try >= 2 { // the third is the last one, the fourth is not sent
			want = []string{"request"}
		}
		if told := refused.take(); !slices.Equal(told, want) || (got.Screen == "failed") != (try >= 2) {
			t.Errorf("try %d shows %q, counted %v, want %v", try, got.Screen, told, want)
		}
	}
	if n := h.platform.charges.Load(); n != 3 {
		t.Errorf("%d charges", n)
	}
}

func TestAddressesAreNotKept(t *testing.T) {
	t.Parallel()
	named := func(merchant, address string) string {
		h := newHouse(t, func(h *house, o *checkout.Options) {
			o.ClientAddress = func(*fiber.Ctx) string { return address }
			if merchant == "other" {
				h.public = "https://pay.other.example"
				o.Platform = func(string) (platforms.Platform, bool) { return h.platform, true }
			}
		})
		h.add("r1", func(r *conversations.PaymentRequest) { opened(r); r.MerchantID = merchant })
		h.call(t, "r1", "charge", `{"transient_token":"forged"}`)
		counted := h.store.counted()
		name, ok := strings.CutPrefix(counted[0], "begin "+merchant+" ")
		if !ok || len(name) < 20 || strings.Contains(name, address) || strings.Contains(h.log.String(), address) {
			t.Errorf("%s at %s is counted as %v", address, merchant, counted)
		}
		return name
	}
	home := named("acme", "203.0.113.7")
	for _, tt := range []struct {
		merchant, address string
		same              bool
	}{
		{"acme", "203.0.113.7", true}, {"acme", "::ffff:203.0.113.7", true}, {"acme", "203.0.113.8", false}, {"other", "203.0.113.7", false},
	} {
		if got := named(tt.merchant, tt.address) == home; got != tt.same {
			t.Errorf("%s at %s counts with the first: %v", tt.address, tt.merchant, got)
		}
	}
	six := named("acme", "2001:db8:1:2:3:4:5:6")
	if named("acme", "2001:db8:1:2::1") != six || named("acme", "2001:db8:1:3::1") == six {
		t.Error("the tries of an IPv6 network of 64 bits are not counted as one")
	}
}

// TestAdviceLeaksNothing: whoever tries stolen cards learns no more than that
// one was declined.
func TestAdviceLeaksNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	text := func(reason string, final bool) string {
		h.add("r1", func(r *conversations.PaymentRequest) {
			because(conversations.AttemptDeclined, reason)(r)
			r.Attempts[0].Result.Final = final
		})
		a := h.do(t, httptest.NewRequest(http.MethodGet, "/pay/"+h.token(t, "r1")+"/state", nil))
		var got called
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Screen != "declined" || !got.CanRetry || got.Message == "" {
			t.Fatalf("%s: %d %+v, %v", reason, a.status, got.State, err)
		}
		if reason != "" && strings.Contains(a.body, reason) {
			t.Errorf("%s: the page says the platform's word:\n%s", reason, a.body)
		}
		return got.Message
	}
	plain := text("PROCESSOR_DECLINED", false)
	for _, reason := range []string{"STOLEN_LOST_CARD", "BLACKLISTED_CUSTOMER", "SUSPENDED_ACCOUNT", "BLOCKED_BY_CARDHOLDER", "DECISION_PROFILE_REJECT", "SCORE_EXCEEDS_THRESHOLD", "GENERAL_DECLINE", "A_WORD_OF_TOMORROW", ""} {
		if got := text(reason, false); got != plain {
			t.Errorf("%s reads %q, want what any decline reads", reason, got)
		}
	}
	another := text("INSUFFICIENT_FUND", false)
	for _, reason := range []string{"STOLEN_LOST_CARD", "INVALID_ACCOUNT", "PROCESSOR_DECLINED"} {
		if got := text(reason, true); got != another {
			t.Errorf("%s for good reads %q, want what a card without money reads", reason, got)
		}
	}
	details := text("INVALID_CVN", false)
	for _, reason := range []string{"INVALID_ACCOUNT", "EXPIRED_CARD", "CVN_NOT_MATCH", "AVS_FAILED"} {
		if got := text(reason, false); got != details {
			t.Errorf("%s reads %q: it tells which detail is wrong", reason, got)
		}
	}
	raw, err := os.ReadFile("web/texts.en.json")
	if err != nil {
		t.Fatal(err)
	}
	var texts map[string]string
	if err := json.Unmarshal(raw, &texts); err != nil {
		t.Fatal(err)
	}
	for key, words := range texts {
		for _, word := range []string{"stolen", "lost", "fraud", "block", "insufficient", "funds", "suspect"} {
			if strings.Contains(strings.ToLower(words), word) {
				t.Errorf("the text %s says %q", key, word)
			}
		}
	}
}
