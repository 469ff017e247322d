package conversations

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSenderNotices: whatever the order of arrival, the newest word about each
// thing stands, once, for every process.
func TestSenderNotices(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			stores := []*Store{open(t, o), open(t, o)}
			at := stores[0].Now().Truncate(time.Second)
			say := func(i int, n Notice) {
				t.Helper()
				if err := stores[i%2].NoteSender(t.Context(), "acme-wa", n); err != nil {
					t.Fatal(err)
				}
			}
			template := func(minute int, name, language string, standing Standing) Notice {
				return Notice{Subject: NoticeTemplate, Name: name, Language: language, Standing: standing, Word: string(standing), At: at.Add(time.Duration(minute) * time.Minute)}
			}
			for i, n := range []Notice{
				template(3, "pay", "en", StandingUnusable), template(1, "pay", "en", StandingUsable), template(3, "pay", "en", StandingUnusable),
				template(2, "pay", "de", StandingUsable), template(0, "pay", "de", StandingUnusable),
				template(4, "receipt", "en", StandingUsable),
				{Subject: NoticeQuality, Name: "pay", Language: "en", Standing: StandingLimited, Word: "yellow", At: at},
				{Subject: NoticeAccount, Standing: StandingUnusable, Word: "restricted", Detail: strings.Repeat("é", 2000), At: at},
			} {
				say(i, n)
			}
			want := []string{"receipt/en usable", "pay/en unusable", "pay/de usable", "account/ unusable", "pay/en limited"}
			for i, s := range stores {
				state, err := s.SenderState(t.Context(), "acme-wa")
				if err != nil || state.Hold != nil {
					t.Fatalf("store %d: %+v, %v", i, state.Hold, err)
				}
				var got []string
				for _, n := range state.Notices {
					name := n.Name
					if n.Subject == NoticeAccount {
						name = "account"
						if len(n.Detail) > maxNoticeText+3 {
							t.Errorf("a detail of %d bytes is kept", len(n.Detail))
						}
					}
					got = append(got, name+"/"+n.Language+" "+string(n.Standing))
				}
				if !slices.Equal(got, want) {
					t.Errorf("store %d knows %q, want %q", i, got, want)
				}
			}
			if other, err := stores[0].SenderState(t.Context(), "acme-sms"); err != nil || len(other.Notices) > 0 {
				t.Errorf("another sender has %v, %v", other.Notices, err)
			}
		})
	}
}

// TestSenderNoticesAreBounded: of too many the oldest go, the hold never.
func TestSenderNoticesAreBounded(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			if err := s.HoldSender(t.Context(), "acme-wa", Hold{Reason: FailureRate, Until: s.Now().Add(time.Hour)}); err != nil {
				t.Fatal(err)
			}
			at := s.Now().Add(-time.Hour)
			const over = 7
			for i := range maxNotices + over {
				n := Notice{Subject: NoticeTemplate, Name: fmt.Sprint("t", i), At: at.Add(time.Duration(i) * time.Second)}
				if err := s.NoteSender(t.Context(), "acme-wa", n); err != nil {
					t.Fatal(err)
				}
			}
			state, err := s.SenderState(t.Context(), "acme-wa")
			if err != nil || len(state.Notices) != maxNotices || state.Hold == nil {
				t.Fatalf("%d notices, hold %v, %v", len(state.Notices), state.Hold, err)
			}
			if oldest := state.Notices[maxNotices-1].Name; oldest != fmt.Sprint("t", over) {
				t.Errorf("the oldest that is kept is %s", oldest)
			}
		})
	}
}

// TestSenderHold: from several processes at once, the one that ends last
// stands, and ends by itself.
func TestSenderHold(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			now := &clock{at: time.Now()}
			o.Now = now.read
			stores := []*Store{open(t, o), open(t, o)}
			until := stores[0].Now().Add(time.Hour).Truncate(time.Millisecond)
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					h := Hold{Reason: FailureAuth, Code: fmt.Sprint(i), Until: until.Add(-time.Duration(i) * time.Minute), Fail: i == 0}
					if err := stores[i%2].HoldSender(t.Context(), "acme-wa", h); err != nil {
						t.Errorf("hold: %v", err)
					}
				})
			}
			wg.Wait()
			for i, s := range stores {
				state, err := s.SenderState(t.Context(), "acme-wa")
				if want := (Hold{Reason: FailureAuth, Code: "0", Until: until, Fail: true}); err != nil || state.Hold == nil || *state.Hold != want {
					t.Errorf("store %d: %+v, %v, want %+v", i, state.Hold, err, want)
				}
			}
			now.add(time.Hour + time.Second)
			if state, err := stores[0].SenderState(t.Context(), "acme-wa"); err != nil || state.Hold != nil {
				t.Errorf("after its end: %+v, %v", state.Hold, err)
			}
		})
	}
}

// TestThrottleKeys: the limiter's keys are under the store's prefix, and one
// store's permissions are not another's.
func TestThrottleKeys(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, other := options(t), options(t)
			other.Addresses = o.Addresses
			for i, s := range []*Store{open(t, o), open(t, other)} {
				if wait, err := s.Throttle(t.Context(), "sender/acme-wa", Rate{Events: 2, Per: time.Hour, Burst: 1}); wait != 0 || err != nil {
					t.Errorf("store %d: %v, %v", i, wait, err)
				}
				wait, err := s.Throttle(t.Context(), "sender/acme-wa", Rate{Events: 2, Per: time.Hour, Burst: 1})
				if err != nil || wait <= 29*time.Minute || wait > 30*time.Minute {
					t.Errorf("store %d: the second comes after %v, %v, want half an hour", i, wait, err)
				}
				if n := s.rdb.Exists(t.Context(), s.keys.throttle("sender/acme-wa")).Val(); n != 1 {
					t.Errorf("store %d has no key %s", i, s.keys.throttle("sender/acme-wa"))
				}
				if n := s.rdb.Exists(t.Context(), limiterKey+"sender/acme-wa").Val(); n != 0 {
					t.Errorf("store %d wrote a key outside its prefix", i)
				}
			}
		})
	}
}

// TestThrottleRefusesNonsense: a rate that could never give a permission is a
// mistake, not a wait without end.
func TestThrottleRefusesNonsense(t *testing.T) {
	t.Parallel()
	s := open(t, embeddedOptions(t))
	for _, r := range []Rate{{}, {Events: 1, Per: time.Second}, {Events: 0, Per: time.Second, Burst: 1}, {Events: 1, Burst: 1}} {
		if _, err := s.Throttle(t.Context(), "x", r); err == nil {
			t.Errorf("%+v is taken", r)
		}
	}
}

// TestReleaseSender: a hold ends for its reason alone, and only as it was read.
func TestReleaseSender(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, options(t))
			release := func(want bool, reasons ...FailureReason) {
				t.Helper()
				if was, err := s.ReleaseSender(t.Context(), "acme-wa", reasons...); err != nil || was != want {
					t.Errorf("released for %v: %v, %v, want %v", reasons, was, err, want)
				}
			}
			held := func(want bool) {
				t.Helper()
				if state, err := s.SenderState(t.Context(), "acme-wa"); err != nil || (state.Hold != nil) != want {
					t.Errorf("held: %v, %v, want %v", state.Hold, err, want)
				}
			}
			release(false, FailureAuth)
			if err := s.NoteSender(t.Context(), "acme-wa", Notice{Subject: NoticeQuality, At: s.Now()}); err != nil {
				t.Fatal(err)
			}
			release(false, FailureAuth)
			if err := s.HoldSender(t.Context(), "acme-wa", Hold{Reason: FailureAuth, Until: s.Now().Add(time.Hour), Fail: true}); err != nil {
				t.Fatal(err)
			}
			release(false)
			release(false, FailureRate, FailureAccount)
			held(true)
			release(true, FailureAccount, FailureAuth)
			held(false)
			release(false, FailureAuth)
			if state, err := s.SenderState(t.Context(), "acme-wa"); err != nil || len(state.Notices) != 1 {
				t.Errorf("its notices are %v, %v", state.Notices, err)
			}
		})
	}
}
