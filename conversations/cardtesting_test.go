package conversations

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var someLimits = CardTesting{
	Window: 24 * time.Hour, ContactTries: 10, AddressTries: 6, FreeDeclines: 3, FirstDelay: 10 * time.Second, LongestDelay: time.Hour,
}

func TestContactMayTry(t *testing.T) {
	t.Parallel()
	// ago makes declines that were so long ago, oldest first.
	ago := func(ds ...time.Duration) (out []time.Time) {
		for _, d := range ds {
			out = append(out, noon.Add(-d))
		}
		return out
	}
	many := func(n int, last time.Duration) (out []time.Time) {
		for i := range n {
			out = append(out, noon.Add(-last-time.Duration(n-1-i)*time.Second))
		}
		return out
	}
	h, s := time.Hour, time.Second
	short := someLimits
	short.Window = time.Minute
	for _, tt := range []struct {
		name     string
		limits   CardTesting
		declines []time.Time
		reason   string
		retry    time.Duration
	}{
		{"none", someLimits, nil, "", 0},
		{"the free ones", someLimits, many(3, 0), "", 0},
		{"one more", someLimits, many(4, 0), ReasonTooSoon, 10 * s},
		{"one more, a while ago", someLimits, many(4, 4*s), ReasonTooSoon, 6 * s},
		{"one more, long enough ago", someLimits, many(4, 10*s), "", 0},
		{"it doubles", someLimits, many(5, 0), ReasonTooSoon, 20 * s},
		{"and doubles", someLimits, many(9, 0), ReasonTooSoon, 320 * s},
		{"the most", someLimits, many(10, h), ReasonTooManyDeclines, 23*h - 9*s},
		{"more than the most", someLimits, many(12, h), ReasonTooManyDeclines, 23*h - 9*s}, // until fewer than ten count
		{"old ones do not count", someLimits, ago(26*h, 25*h, 24*h, 3*s, 2*s, s), "", 0},
		{"fewer than the most, and then a wait", short, many(10, 0), ReasonTooManyDeclines, 54 * s}, // when six count, their wait of 40 s is over
		{"the window ends before the wait", short, many(8, 0), ReasonTooSoon, 54 * s},
		{"no limits", CardTesting{}, many(50, 0), "", 0},
		{"no most", CardTesting{Window: h, FreeDeclines: 1, FirstDelay: s, LongestDelay: 5 * s}, many(40, 0), ReasonTooSoon, 5 * s},
	} {
		c := &Contact{Declines: tt.declines}
		got := c.MayTry(tt.limits, noon)
		if (got == nil) != (tt.reason == "") || got != nil && got.Reason != tt.reason {
			t.Errorf("%s: %v, want %q", tt.name, got, tt.reason)
			continue
		}
		if got == nil {
			continue
		}
		if at := got.RetryAt.Sub(noon); at != tt.retry {
			t.Errorf("%s: again in %s, want %s", tt.name, at, tt.retry)
		}
		if early := c.MayTry(tt.limits, got.RetryAt.Add(-time.Millisecond)); early == nil {
			t.Errorf("%s: a try is taken before the time that was told", tt.name)
		}
		if no := c.MayTry(tt.limits, *got.RetryAt); no != nil {
			t.Errorf("%s: refused at the time that was told: %v", tt.name, no)
		}
	}
}

// TestDeclinesBoundTheNextAttempt: declines of all of a contact's requests
// count, and no outcome that is not the customer's doing.
func TestDeclinesBoundTheNextAttempt(t *testing.T) {
	t.Parallel()
	s := newStory(t)
	s.state.Merchant.CardTesting, s.state.Merchant.MaxAttempts = someLimits, 100
	s.state.Timings.DeclineGrace = 5 * time.Minute
	s.create(theRequest)
	s.do(LinkOpened{theRequest})
	n := 0
	try := func(o Outcome) {
		s.start()
		s.wantAllowed()
		n++
		s.answer(n, o)
	}
	for range 5 {
		try(OutcomeNotTaken)
	}
	if len(s.state.Contact.Declines) != 0 {
		t.Fatalf("what was not taken counts: %v", s.state.Contact.Declines)
	}
	for range 3 {
		try(OutcomeDeclined)
	}
	try(OutcomeDeclined) // the free ones are used up
	s.start()
	s.wantRefused(ReasonTooSoon)
	if at := s.last.Refused.RetryAt; at == nil || !at.Equal(s.now.Add(10*time.Second)) {
		t.Errorf("again at %v, want in 10 s", at)
	}
	for wait := 10 * time.Second; len(s.state.Contact.Declines) < 10; wait *= 2 {
		s.now = s.now.Add(wait)
		s.do(CustomerExtended{theRequest})
		try(OutcomeDeclined)
	}
	news := func() (out []string) {
		for _, e := range s.last.Events {
			out = append(out, e.Type+" "+e.Reason)
		}
		return out
	}
	if got := news(); !slices.Contains(got, "card_testing too_many_declines") {
		t.Errorf("the agent reads %v of the last decline", got)
	}
	s.now = s.now.Add(time.Minute)
	s.start()
	s.wantRefused(ReasonTooManyDeclines)
	s.wantLifecycle(Open, "")
	const other = "pr_0000000000000000000s"
	s.create(other)
	if got := news(); !slices.Contains(got, "card_testing too_many_declines") {
		t.Errorf("the agent reads %v of a new request", got)
	}
	s.do(LinkOpened{other})
	s.do(AttemptStarted{RequestID: other, Platform: "unified_checkout"})
	s.wantRefused(ReasonTooManyDeclines)
	seen := 0
	for _, e := range s.events {
		if e.Type == "card_testing" {
			seen++
		}
	}
	if seen != 2 {
		t.Errorf("the agents were told %d times, want once a request", seen)
	}
}

func TestRiskAndPartialCountOnce(t *testing.T) {
	t.Parallel()
	for _, o := range []Outcome{OutcomeRiskDeclined, OutcomePartial} {
		s := newStory(t)
		s.state.Merchant.CardTesting = someLimits
		s.create(theRequest)
		s.do(LinkOpened{theRequest})
		s.start()
		s.answer(1, o)
		s.answer(1, o) // asked again
		if n := len(s.state.Contact.Declines); n != 1 {
			t.Errorf("%s counts %d times", o, n)
		}
	}
}

func TestDeclinesAreBoundedInNumber(t *testing.T) {
	t.Parallel()
	for _, limits := range []CardTesting{someLimits, {Window: time.Hour, FreeDeclines: 3}} {
		p := &paymentTx{tx: &tx{State: State{Merchant: Merchant{CardTesting: limits}}, now: noon, contact: &Contact{}}, r: &PaymentRequest{}}
		for range 500 {
			p.now = p.now.Add(time.Second)
			p.noteDecline(Declined)
		}
		if n := len(p.contact.Declines); n > 50 || n < limits.ContactTries {
			t.Errorf("%+v: %d declines are kept", limits, n)
		}
		if p.contact.Declines[len(p.contact.Declines)-1] != p.now {
			t.Errorf("%+v: the newest is not kept", limits)
		}
	}
}

// TestTriesOfAnAddress: what tries.lua says, on every kind of Redis, from two
// processes.
func TestTriesOfAnAddress(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			var skew atomic.Int64
			o.Now = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
			stores := []*Store{open(t, o), open(t, o)}
			turn := 0
			store := func() *Store { turn++; return stores[turn%2] }
			after := func(d time.Duration) { skew.Add(int64(d)) }
			begin := func(address string) (Try, string, time.Duration) {
				t.Helper()
				s := store()
				try, err := s.BeginTry(t.Context(), "acme", address, someLimits)
				var no *Error
				if errors.As(err, &no) && no.Code == CodeConflict {
					looked := s.MayTry(t.Context(), "acme", address, someLimits)
					if looked == nil || looked.Error() != err.Error() {
						t.Errorf("refused with %v, and when looked at with %v", err, looked)
					}
					return try, no.Reason, no.RetryAt.Sub(s.Now()).Round(time.Second)
				}
				if err != nil {
					t.Fatal(err)
				}
				return try, "", 0
			}
			taken := func(address string) Try {
				t.Helper()
				if err := store().MayTry(t.Context(), "acme", address, someLimits); err != nil {
					t.Fatalf("looked at: %v", err)
				}
				try, reason, wait := begin(address)
				if reason != "" {
					t.Fatalf("refused: %s for %s", reason, wait)
				}
				return try
			}
			refused := func(address, reason string, within time.Duration) {
				t.Helper()
				// Some time passes, and the clocks of two processes differ a little.
				if _, got, wait := begin(address); got != reason || wait > within+time.Second || wait < within/2 && within < time.Hour || wait < within-time.Minute {
					t.Errorf("%q for %s, want %q for %s", got, wait, reason, within)
				}
			}
			end := func(try Try, declined bool) {
				t.Helper()
				if err := store().EndTry(t.Context(), try, declined); err != nil {
					t.Fatal(err)
				}
			}
			// Who pays is never bounded, however many they are.
			for range 20 {
				end(taken("office"), false)
			}
			for range 3 {
				end(taken("tester"), true)
			}
			end(taken("tester"), true)
			refused("tester", ReasonTooSoon, 10*time.Second)
			after(11 * time.Second)
			end(taken("tester"), true)
			refused("tester", ReasonTooSoon, 20*time.Second)
			after(21 * time.Second)
			paid := taken("tester")
			refused("tester", ReasonTooManyTries, 24*time.Hour-32*time.Second)
			end(paid, false) // given back
			last := taken("tester")
			end(last, true)
			after(time.Hour)
			refused("tester", ReasonTooManyTries, 23*time.Hour-32*time.Second)
			taken("somebody else")
			// A window later nothing of it counts, nor what still ends in it.
			after(23*time.Hour + time.Minute)
			for range 3 {
				end(taken("tester"), false)
			}
			end(last, false)
			fresh := taken("tester")
			end(last, true)
			end(fresh, false)
			for range 3 {
				end(taken("tester"), true)
			}
			taken("tester")
		})
	}
}

func TestTriesAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	stores := []*Store{open(t, o), open(t, o)}
	var taken atomic.Int64
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			_, err := stores[i%2].BeginTry(t.Context(), "acme", "tester", someLimits)
			if err == nil {
				taken.Add(1)
			} else if CodeOf(err) != CodeConflict {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := taken.Load(); n != int64(someLimits.AddressTries) {
		t.Errorf("%d tries were taken at once, want %d", n, someLimits.AddressTries)
	}
}

func TestTriesWithoutLimitsOrRedis(t *testing.T) {
	t.Parallel()
	s := open(t, embeddedOptions(t))
	for range 100 {
		try, err := s.BeginTry(t.Context(), "acme", "a", CardTesting{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.EndTry(t.Context(), try, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.BeginTry(t.Context(), "acme", "a", someLimits); CodeOf(err) != CodeUnavailable {
		t.Errorf("without Redis: %v", err)
	}
}
