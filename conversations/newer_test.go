package conversations

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// newerField is what a newer version has in its documents, and this one not.
const newerField = `"newer":{"fee":12345678901234567890,"of":["bank"]}`

// asNewer puts a field into the objects that begin at certain places of a
// document, as a newer version would have written it.
func asNewer(t *testing.T, text string, places ...string) string {
	t.Helper()
	for _, place := range places {
		before, after, found := strings.Cut(text, place)
		if !found {
			t.Fatalf("no %s in %s", place, text)
		}
		text = before + place + newerField + "," + after
	}
	if !json.Valid([]byte(text)) {
		t.Fatalf("not JSON: %s", text)
	}
	return text
}

// TestNewerFieldsAreKept: while versions work side by side, and after a way back,
// the older one writes what it does not know as it found it.
func TestNewerFieldsAreKept(t *testing.T) {
	t.Parallel()
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			newer, older := open(t, o), open(t, o)
			r := paidFor(t, newer)
			part := Money{Minor: 700, Currency: r.Order.Total.Currency}
			for range 2 {
				did(t, newer, r.ContactID, OperationRequested{RequestID: r.ID, Operation: OperationRefund, Amount: &part})
			}
			remembered := did(t, older, r.ContactID, TakenOver{Agent: "zoe"}).Contact // as it was without the fields

			p, _ := partitionOf(r.ContactID, contactPrefix, o.Partitions)
			ctx, contact, request := t.Context(), newer.keys.contact(p, r.ContactID), newer.keys.request(p, r.ID)
			sending := remembered.Lanes[WhatsApp].Current
			message := newer.keys.message(p, sending)
			places := map[string][]string{
				contact: {`{`, `"lanes":{"whatsapp":{`},
				request: {`{`, `"order":{`, `"line_items":[{`, `"attempts":[{`, `"result":{`, `"operations":[{`, `"receipt":{`},
				message: {`{`},
			}
			for key, at := range places {
				var err error
				if key == contact {
					err = newer.rdb.HSet(ctx, key, "s", asNewer(t, newer.rdb.HGet(ctx, key, "s").Val(), at...), "v", "99.newer").Err()
				} else {
					err = newer.rdb.Set(ctx, key, asNewer(t, newer.rdb.Get(ctx, key).Val(), at...), time.Hour).Err()
				}
				if err != nil {
					t.Fatal(err)
				}
			}

			for i, e := range []Event{
				OperationStarted{RequestID: r.ID, OperationID: r.ID + "-op1", EntryID: "1-1"}, // what it remembers conflicts
				OperationAnswered{RequestID: r.ID, OperationID: r.ID + "-op1", State: OperationSucceeded, ResultID: "77"},
				OperationRequested{RequestID: r.ID, Operation: OperationRefund, Amount: &part},
				SendingStarted{MessageID: sending, EntryID: "1-2"},
				HandedBack{},
			} {
				did(t, older, r.ContactID, e)
				for key, at := range places {
					text := newer.rdb.HGet(ctx, key, "s").Val()
					if key != contact {
						text = newer.rdb.Get(ctx, key).Val()
					}
					if n := strings.Count(text, newerField); n != len(at) {
						t.Errorf("after %d events %s has %d of %d fields:\n%s", i+1, key, n, len(at), text)
					}
				}
			}
			got, err := older.Request(ctx, r.ID)
			if err != nil || len(got.Operations) != 3 || got.RefundedMinor != 700 {
				t.Errorf("%+v, %v", got, err)
			}
			// Nothing new is no reason to write: the same refusal is recorded once.
			versions := map[string]bool{}
			for range 3 {
				did(t, older, r.ContactID, AttemptStarted{RequestID: r.ID, TokenExpiresAt: time.Now().Add(time.Minute)})
				versions[newer.rdb.HGet(ctx, contact, "v").Val()] = true
			}
			if len(versions) != 1 {
				t.Errorf("an event that changes nothing was written: %v", versions)
			}
		})
	}
}

// TestNewerTimersStay: a timer of a kind that only a newer version knows is left
// to it, and holds back no other.
func TestNewerTimersStay(t *testing.T) {
	t.Parallel()
	o := serverOptions(t)
	now := &clock{at: time.Now()}
	o.Now = now.read
	s := open(t, o)
	r := made(t, s, asked("1", "0821234567"))
	p, _ := partitionOf(r.ContactID, contactPrefix, o.Partitions)
	ids := []string{r.ID, "something else"}
	for _, id := range ids {
		timer := Timer{Kind: "newer", ContactID: r.ContactID, ID: id, N: 1, At: now.read().Add(-time.Second)}
		(&TimerRunner{Store: s, Log: quiet}).fire(context.Background(), withTimer(t, s, p, timer))
		at := s.rdb.ZScore(t.Context(), s.keys.timers(p), timer.member())
		if at.Err() != nil || at.Val() <= float64(now.read().UnixMilli()) {
			t.Errorf("the timer about %q is due at %v, %v", id, at.Val(), at.Err())
		}
	}
	// Whose contact is gone is nobody's.
	gone := Timer{Kind: "newer", ContactID: strings.Replace(r.ContactID, r.ContactID[len(r.ContactID)-6:], "aaaaaa", 1), ID: r.ID, At: now.read()}
	(&TimerRunner{Store: s, Log: quiet}).fire(context.Background(), withTimer(t, s, p, gone))
	if at := s.rdb.ZScore(t.Context(), s.keys.timers(p), gone.member()); at.Err() == nil {
		t.Error("the timer of a contact that is gone stays")
	}
}

func withTimer(t *testing.T, s *Store, p int, timer Timer) Timer {
	t.Helper()
	if err := s.rdb.Do(t.Context(), "ZADD", s.keys.timers(p), fmt.Sprint(timer.At.UnixMilli()), timer.member()).Err(); err != nil {
		t.Fatal(err)
	}
	return timer
}
