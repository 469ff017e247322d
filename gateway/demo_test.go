package main

import (
	"bytes"
	"context"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"paythread/conversations/redistest"
)

// freeDemo are demo flags that take any free ports.
func freeDemo(args ...string) []string {
	return append([]string{"demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--simulator-listen", "localhost:0"}, args...)
}

func TestThePlayTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"embedded redis": freeDemo("--play"),
		"real redis":     freeDemo("--play", "--redis-url", redistest.Start(t).URL()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			if code := run(t.Context(), args, strings.NewReader(""), &out, &errs, nil); code != exitOK {
				t.Fatalf("exit code %d, want 0\n%s%s", code, out.String(), errs.String())
			}
			last := -1
			for _, status := range []string{"created", "sent", "delivered", "opened", "checkout_started", "attempt_started", "paid", "receipt_delivered", "receipt_viewed"} {
				at := regexp.MustCompile(`(?m)^ *[0-9.]+s  status    ` + status + ` `).FindStringIndex(out.String())
				if at == nil || at[0] < last {
					t.Fatalf("status %s is missing or out of order in\n%s", status, out.String())
				}
				last = at[0]
			}
			if errs.Len() > 0 {
				t.Errorf("the play wrote to standard error:\n%s", errs.String())
			}
		})
	}
}

func TestTheDemoPrintsAStartPageAndEndsWhenAsked(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out := newLines()
	done := make(chan int, 1)
	var errs bytes.Buffer
	go func() { done <- run(ctx, freeDemo(), strings.NewReader(""), out, &errs, nil) }()
	page := out.wait(t, regexp.MustCompile(`http://localhost:[0-9]+/\n`))
	story := &story{outside: strings.TrimSpace(page), client: outwardClient()}
	resp, err := story.do(ctx, "GET", story.outside, nil, nil)
	if err != nil {
		t.Fatalf("get the start page: %v", err)
	}
	_ = resp.Body.Close() // its status is what counts
	if resp.StatusCode != 200 {
		t.Errorf("the start page answers %d, want 200", resp.StatusCode)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d after being asked to stop, want 0\n%s", code, errs.String())
	}
}

func TestATakenPortIsAClearError(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--listen", "--admin-listen", "--simulator-listen"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			var out, errs bytes.Buffer
			code := run(t.Context(), freeDemo(flag, other.Addr().String()), strings.NewReader(""), &out, &errs, nil)
			if code != exitFailed || !strings.Contains(errs.String(), "another program listens on "+other.Addr().String()) {
				t.Errorf("exit code %d, %q; want 1 and the address that is taken", code, errs.String())
			}
		})
	}
}

// lines collects output and lets a test wait for some of it.
type lines struct {
	text chan string
	all  string
}

func newLines() *lines { return &lines{text: make(chan string, 64)} }

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	l.text <- string(b)
	return len(b), nil
}

// wait returns the first match, once it was written.
func (l *lines) wait(t *testing.T, want *regexp.Regexp) string {
	t.Helper()
	for {
		if found := want.FindString(l.all); found != "" {
			return found
		}
		select {
		case more := <-l.text:
			l.all += more
		case <-time.After(30 * time.Second):
			t.Fatalf("nothing like %s was written, only\n%s", want, l.all)
		}
	}
}
