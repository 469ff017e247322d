package main

import (
	"encoding/json"
	"go/ast"
	"go/token"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// logLine is one line of the gateway's log.
type logLine map[string]any

func (l logLine) text(name string) string {
	text, _ := l[name].(string)
	return text
}

// lines returns the gateway's own lines; the simulated world writes another
// format into the same book.
func (b *logBook) lines(t *testing.T) []logLine {
	t.Helper()
	var lines []logLine
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("a line of the log is not JSON: %v: %s", err, line)
		}
		lines = append(lines, l)
	}
	return lines
}

// callbackReceiver takes callbacks, and counts those of each type.
type callbackReceiver struct {
	mu    sync.Mutex
	types map[string]int
}

func (r *callbackReceiver) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	var event struct{ Type string }
	if err := json.NewDecoder(in.Body).Decode(&event); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.types == nil {
		r.types = map[string]int{}
	}
	r.types[event.Type]++
	w.WriteHeader(http.StatusNoContent)
}

func (r *callbackReceiver) has(kind string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.types[kind] > 0
}

// TestLogTellsOneLifeByOneID plays a payment from its request to its refund and
// looks for all of it in the log by the id of the payment request alone.
func TestLogTellsOneLifeByOneID(t *testing.T) {
	t.Parallel()
	receiver := &callbackReceiver{}
	theirs := httptest.NewServer(receiver)
	t.Cleanup(theirs.Close)
	s := newTale(t, newStage(t, stageOptions{Redis: onRealRedis}))
	s.at = "a story for the log"
	r := s.want(s.call(http.MethodPost, s.public+callbacksPath, bearer(demoAPIKey), map[string]any{"url": theirs.URL + "/secret-path-of-a-callback"}), http.StatusCreated)
	var endpoint struct{ Secret string }
	r.into(s, &endpoint)

	s.agentAsks([]string{"149.00 ZAR", "1042", "whatsapp"})
	s.customerReceives([]string{"payment", "whatsapp"})
	s.customerOpens(nil)
	form := s.page
	link := s.newestLink("/p/")
	s.customerPays([]string{"approved"})
	s.agentSees([]string{"paid"})
	s.customerReceives([]string{"receipt", "whatsapp"})
	s.agentSees([]string{"receipt sent"})
	s.customerOpensReceipt(nil)
	s.agentSees([]string{"receipt viewed"})
	s.want(s.wish("refund", map[string]any{"reason": "a reason in private words"}), http.StatusOK)
	s.agentSees([]string{"refunded"})
	s.await("the callbacks", func() bool {
		return receiver.has("payment_request.paid") && receiver.has("payment_request.refunded")
	})
	s.customerReceives([]string{"refund", "whatsapp"})
	s.customerWrites([]string{"a text in private words", "whatsapp"})
	s.customerIsAnswered([]string{"Acme Energy"})

	id := s.current().id
	var life []logLine
	for _, l := range s.logged.lines(t) {
		if b, err := json.Marshal(l); err != nil {
			t.Fatal(err)
		} else if strings.Contains(string(b), strings.TrimPrefix(id, "pr_")) {
			life = append(life, l)
		}
	}
	audited := func(l logLine) bool { return l["audit"] == true }
	for _, step := range []struct {
		name string
		fits func(logLine) bool
	}{
		{"who asked", func(l logLine) bool {
			return l.text("call") == "create" && l.text("by") == "agent ag7" && audited(l)
		}},
		{"created", func(l logLine) bool { return l.text("event") == "created" && l.text("lifecycle") == "open" }},
		{"message accepted", func(l logLine) bool {
			return l.text("msg") == "a provider accepted a message" && l.text("provider") == "meta" && l.text("sender") == "acme-wa" && l.text("purpose") == "payment"
		}},
		{"message sent", func(l logLine) bool { return l.text("event") == "sent" }},
		{"link opened", func(l logLine) bool { return l.text("event") == "opened" }},
		{"attempt", func(l logLine) bool {
			return l.text("event") == "attempt_started" && l.text("attempt") == id+"-1" && audited(l)
		}},
		{"charge sent", func(l logLine) bool {
			return l.text("msg") == "charge sent" && l.text("amount") == "149.00" && l.text("attempt") == id+"-1" && audited(l)
		}},
		{"charge answered", func(l logLine) bool {
			return l.text("msg") == "charge answered" && l.text("platform_id") != "" && audited(l)
		}},
		{"outcome", func(l logLine) bool { return l.text("event") == "paid" && audited(l) }},
		{"receipt", func(l logLine) bool { return l.text("event") == "receipt_sent" }},
		{"receipt seen", func(l logLine) bool { return l.text("event") == "receipt_viewed" }},
		{"refund asked", func(l logLine) bool {
			return l.text("call") == "refund" && l.text("by") == "oms" && audited(l)
		}},
		{"refund asked, as it stands", func(l logLine) bool {
			return l.text("event") == "operation_asked" && l.text("operation") == id+"-op1" && l.text("amount") == "149.00" && audited(l)
		}},
		{"refund answered", func(l logLine) bool {
			return l.text("msg") == "an operation on money was answered" && l.text("operation") == id+"-op1" && l.text("state") == "succeeded" && audited(l)
		}},
		{"refunded", func(l logLine) bool { return l.text("event") == "refunded" && audited(l) }},
		{"callback", func(l logLine) bool {
			return l.text("msg") == "a callback was delivered" && l.text("payment_request_id") == id && l.text("endpoint") != ""
		}},
	} {
		at := slices.IndexFunc(life, step.fits)
		if at < 0 {
			t.Errorf("%s: the log has no such line", step.name)
			continue
		}
		l := life[at]
		if l.text("event") != "" && (l.text("merchant_id") != "acme" || l.text("conversation_id") == "" || l.text("payment_request_id") != id) {
			t.Errorf("%s: the line lacks an id: %v", step.name, l)
		}
	}
	seen := map[float64]bool{}
	for _, l := range life {
		if seq, ok := l["seq"].(float64); ok && seen[seq] {
			t.Errorf("event %v is in the log twice", seq)
		} else if ok {
			seen[seq] = true
		}
	}
	logged := s.logged.String()
	for what, secret := range map[string]string{
		"the API key": demoAPIKey, "the session's token": s.token, "the access token": demoMeta.AccessToken, "the app's secret": demoMeta.AppSecret,
		"the SMS provider's token": demoTwilio.AuthToken, "the platform's secret": demoCyberSource.SharedSecret, "the callback's secret": endpoint.Secret,
		"the callback's path": "secret-path-of-a-callback", "the phone number": strings.TrimPrefix(demoCustomer, "+"), "the number as it was typed": "082 123 4567",
		"the card": storyCards["approved"], "the payment link's code": link[strings.LastIndexByte(link, '/')+1:],
		"the link's token": form.url[strings.LastIndexByte(form.url, '/')+1:], "the page's nonce": form.nonce, "the capture context": form.context,
		"the receipt's token": s.page.url[strings.LastIndexByte(s.page.url, '/')+1:],
		"the customer's text": "a text in private words", "the refund's reason": "a reason in private words", "the customer's name": "Thandi Nkosi",
	} {
		switch {
		case secret == "":
			t.Errorf("the story has no %s: this test does not look for it", what)
		case strings.Contains(logged, secret):
			t.Errorf("the log has %s in it", what)
		}
	}
	s.close()
}

// logCalls are the methods of a logger, with the place of the message among
// their arguments.
var logCalls = map[string]int{
	"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2,
}

// loggedFields collects the names of the attributes of log lines, and where each
// is used first.
func loggedFields(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	note := func(e ast.Expr, file string) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if name, err := strconv.Unquote(lit.Value); err == nil && found[name] == "" {
				found[name] = file
			}
		}
	}
	for _, src := range moduleSources(t) {
		if src.isTest() || !regexp.MustCompile(`^(gateway|conversations|checkout|receipts)/`).MatchString(src.file) || strings.Contains(src.file, "providertest") || strings.Contains(src.file, "platformtest") {
			continue
		}
		ast.Inspect(src.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			at, logs := logCalls[method.Sel.Name]
			if !logs || !isLogger(method.X) {
				return true
			}
			for i := at + 1; i < len(call.Args); i += 2 {
				note(call.Args[i], src.file)
			}
			return true
		})
		if src.file == "conversations/eventlog.go" { // makes its attributes one by one
			ast.Inspect(src.syntax, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 2 {
					switch f := call.Fun.(type) {
					case *ast.Ident:
						if f.Name == "text" {
							note(call.Args[0], src.file)
						}
					case *ast.SelectorExpr:
						if x, ok := f.X.(*ast.Ident); ok && x.Name == "slog" {
							note(call.Args[0], src.file)
						}
					}
				}
				return true
			})
		}
	}
	return found
}

// isLogger tells whether an expression is named as loggers are here.
func isLogger(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "log"
	case *ast.SelectorExpr:
		return e.Sel.Name == "log" || e.Sel.Name == "Log"
	}
	return false
}

// TestLogFieldsAreDocumented: a field of a log line has one name and one
// meaning, which docs/logs.md gives; and that page has no field that no line has.
func TestLogFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, row := range tableRows(readPage(t, "docs/logs.md"), "field") {
		for _, name := range codeSpans(row[0]) {
			documented[name] = true
		}
	}
	used := loggedFields(t)
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if !documented[name] {
			t.Errorf("%s logs the field %q, which docs/logs.md does not explain", used[name], name)
		}
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(name) {
			t.Errorf("%s logs the field %q, which is not in snake case", used[name], name)
		}
	}
	for name := range documented {
		if used[name] == "" && !slices.Contains([]string{"time", "level", "msg"}, name) {
			t.Errorf("docs/logs.md explains the field %q, which no line has", name)
		}
	}
	if len(used) < 40 {
		t.Errorf("%d fields: this test does not see them", len(used))
	}
}
