package faults

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
)

// posted collects what a courier posts.
type posted struct {
	mu    sync.Mutex
	names []string
}

func (p *posted) post(name string) func(context.Context) {
	return func(context.Context) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.names = append(p.names, name)
	}
}

func (p *posted) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.names, " ")
}

func TestCourier(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		rule []Rule
		want string
	}{
		{"in order", nil, "a b c d"},
		{"dropped", []Rule{{Call: "x", Do: Drop, Skip: 1, Times: 1}}, "a c d"},
		{"twice", []Rule{{Call: "x", Do: Duplicate, Times: 1}}, "a a b c d"},
		{"reordered once", []Rule{{Call: "x", Do: Reorder, Times: 1}}, "b a c d"},
		{"reordered always", []Rule{{Call: "x", Do: Reorder}}, "b a d c"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set := New()
			replace(t, set, tc.rule...)
			c := set.NewCourier()
			defer c.Close()
			var got posted
			for i, name := range []string{"a", "b", "c", "d"} {
				if i == 2 {
					// The pair before must be out, or "kept already" would depend on timing.
					await(t, "the first two", func() bool { return len(got.String()) >= min(3, len(tc.want)-4) })
				}
				c.Send("line", "x", got.post(name))
			}
			await(t, tc.want, func() bool { return got.String() == tc.want })
		})
	}
}

func TestCourierLetsOthersOvertakeAHeldWebhook(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set, Rule{ID: "h", Call: "x", Do: HoldBefore, Times: 1})
	c := set.NewCourier()
	defer c.Close()
	var got posted
	c.Send("line", "x", got.post("a"))
	c.Send("line", "x", got.post("b"))
	await(t, "b alone", func() bool { return got.String() == "b" })
	set.Release("h")
	await(t, "a after its release", func() bool { return got.String() == "b a" })
}

func TestCourierCloseEndsWhatWaits(t *testing.T) {
	t.Parallel()
	set := New()
	replace(t, set,
		Rule{Call: "held", Do: HoldBefore},
		Rule{Call: "late", Do: Delay, Delay: "10h"},
		Rule{Call: "kept", Do: Reorder})
	c := set.NewCourier()
	var got posted
	for _, call := range []string{"held", "late", "kept"} {
		c.Send(call, call, got.post(call))
	}
	c.Close()
	c.Send("line", "x", got.post("after the end"))
	c.Close()
	if got.String() != "" {
		t.Errorf("posted after Close: %q", &got)
	}
	if slices.ContainsFunc(set.Rules(), func(r State) bool { return r.Held != 0 }) {
		t.Errorf("still held: %+v", set.Rules())
	}
}
