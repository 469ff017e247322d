package meta

import (
	"cmp"
	"time"

	"paythread/simulator/faults"
)

// Habits are ways of Meta's that can change while it runs. They begin as the
// configuration says.
type Habits struct {
	SkipDeliveredEvery  int           // see Config
	StatusFirstEvery    int           // see Config
	Batch               time.Duration // see Config
	SpoilEvery          int           // see Config
	RefuseOutsideWindow bool          // see Config
	Payload             string        // PayloadV23 or PayloadV24 for all numbers; empty for each number's own
}

// SetHabits changes Meta's ways from now on.
func (s *Simulator) SetHabits(h Habits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.habits = h
}

// Habits returns Meta's ways of now.
func (s *Simulator) Habits() Habits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.habits
}

// payload is the shape of a number's webhooks.
func (s *Simulator) payload(n *Number) string {
	return cmp.Or(s.Habits().Payload, n.PayloadVersion, PayloadV24)
}

// habitsIn is a change of habits: what is missing stays as it is.
type habitsIn struct {
	SkipDeliveredEvery  *int    `json:"skipDeliveredEvery"`
	StatusFirstEvery    *int    `json:"statusFirstEvery"`
	Batch               *string `json:"batch"`
	SpoilEvery          *int    `json:"spoilEvery"`
	RefuseOutsideWindow *bool   `json:"refuseOutsideWindow"`
	Payload             *string `json:"payload"`
}

// apply returns the habits with the change.
func (in habitsIn) apply(h Habits) (Habits, error) {
	for _, count := range []struct {
		field string
		from  *int
		into  *int
	}{{"skipDeliveredEvery", in.SkipDeliveredEvery, &h.SkipDeliveredEvery}, {"statusFirstEvery", in.StatusFirstEvery, &h.StatusFirstEvery},
		{"spoilEvery", in.SpoilEvery, &h.SpoilEvery}} {
		if count.from == nil {
			continue
		}
		if *count.from < 0 {
			return h, faults.Wrong(count.field, "must not be negative")
		}
		*count.into = *count.from
	}
	if in.Batch != nil {
		d, err := time.ParseDuration(cmp.Or(*in.Batch, "0s"))
		if err != nil || d < 0 {
			return h, faults.Wrong("batch", "must be a duration such as 200ms")
		}
		h.Batch = d
	}
	if in.RefuseOutsideWindow != nil {
		h.RefuseOutsideWindow = *in.RefuseOutsideWindow
	}
	if in.Payload != nil {
		if *in.Payload != "" && *in.Payload != PayloadV23 && *in.Payload != PayloadV24 {
			return h, faults.Wrong("payload", "must be %s or %s", PayloadV23, PayloadV24)
		}
		h.Payload = *in.Payload
	}
	return h, nil
}
