package checkout_test

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/gofiber/fiber/v2"

	"paythread/checkout"
	"paythread/checkout/platforms"
	"paythread/conversations"
)

var pictures = flag.String("pictures", "", "folder to write a picture of each screen to")

//go:embed testdata/library.js
var libraryScript string

var libraryIntegrity = func() string {
	h := sha256.Sum256([]byte(libraryScript))
	return "sha256-" + base64.StdEncoding.EncodeToString(h[:])
}()

// browserPath finds Chromium, without which these tests cannot say anything.
func browserPath(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no Chromium for the pay page's tests: apt-get install chromium")
	return ""
}

var browser struct {
	sync.Once
	ctx    context.Context
	cancel func()
}

// TestMain closes the one browser that all tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if browser.cancel != nil {
		browser.cancel()
	}
	os.Exit(code)
}

// newTab returns a tab of its own browser context: nothing is shared between tests.
func newTab(t *testing.T) context.Context {
	t.Helper()
	path := browserPath(t)
	browser.Do(func() {
		dir, err := os.MkdirTemp("", "paythread-page-")
		if err != nil {
			t.Fatal(err)
		}
		allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(),
			chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
			chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
			// The address bar, which nobody looks at, would bring two pages of its own to each window.
			chromedp.Flag("disable-features", "WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
			chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
			chromedp.UserDataDir(dir), chromedp.Env("TMPDIR="+dir), chromedp.WindowSize(390, 844))
		ctx, stop := chromedp.NewContext(allocator)
		browser.ctx = ctx
		browser.cancel = func() {
			stop()
			stopAllocator()
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
		if err := chromedp.Do(ctx); err != nil {
			t.Fatal(err)
		}
	})
	if browser.ctx == nil || browser.ctx.Err() != nil {
		t.Fatal("the browser did not start")
	}
	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(stop)
	return ctx
}

// site is a house that a browser can visit, with its platform's library on
// another origin.
type site struct {
	*house
	libraryCalls atomic.Int64
	broken       atomic.Bool  // the library cannot be fetched
	tampered     atomic.Bool  // the library is not the one of the hash
	posts        atomic.Int64 // calls that may change something
	refuse       atomic.Bool  // every POST fails on its way
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{}
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.libraryCalls.Add(1)
		if s.broken.Load() {
			http.Error(w, "gone", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, libraryScript)
		if s.tampered.Load() {
			fmt.Fprint(w, "\nwindow.tampered = true;")
		}
	}))
	t.Cleanup(served.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.house = newHouse(t, func(h *house, _ *checkout.Options) {
		h.public = "http://" + listener.Addr().String()
		h.platform.library = served.URL + "/library.js"
		h.store.now = time.Now()
	})
	outer := fiber.New(fiber.Config{Immutable: true, DisableStartupMessage: true, ReadBufferSize: 16 << 10})
	outer.Use(func(c *fiber.Ctx) error {
		if c.Method() == http.MethodPost {
			s.posts.Add(1)
			if s.refuse.Load() {
				return c.SendStatus(http.StatusBadGateway)
			}
		}
		return c.Next()
	})
	outer.Get("/receipts/:jwt", func(c *fiber.Ctx) error {
		return c.Type("html").SendString("<title>the receipt</title><h1>the receipt</h1>")
	})
	outer.Mount("/", s.app)
	done := make(chan error, 1)
	go func() { done <- outer.Listener(listener) }()
	t.Cleanup(func() {
		if err := outer.ShutdownWithTimeout(5 * time.Second); err != nil {
			t.Log("shutdown:", err) // a browser's idle connection; the test has ended
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) visit(t *testing.T, ctx context.Context, id string) {
	t.Helper()
	do(t, ctx, chromedp.Navigate(s.public+"/p/link-"+id), chromedp.WaitReady(chromedp.CSS("#main")))
}

// do runs steps in a tab, and says what the page showed if one fails.
func do(t *testing.T, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		body, shown := chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("%v, while the page says (%v):\n%s", err, shown, body)
	}
}

// get returns what one action finds.
func get[T any](t *testing.T, ctx context.Context, action chromedp.Action[T]) T {
	t.Helper()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// shown waits for a screen and returns its heading and what was announced.
func shown(t *testing.T, ctx context.Context, screen string) (heading, announced string) {
	t.Helper()
	do(t, ctx, chromedp.WaitVisible(chromedp.CSS(`main[data-screen="`+screen+`"] h1`)))
	return get(t, ctx, chromedp.Text(chromedp.CSS("main h1"))), get(t, ctx, chromedp.TextContent(chromedp.CSS("#live")))
}

func wantFocus(t *testing.T, ctx context.Context) {
	t.Helper()
	if tag := get(t, ctx, chromedp.Evaluate[string](`document.activeElement.tagName`)); tag != "H1" {
		t.Errorf("the focus is on %s, want the screen's heading", tag)
	}
}

const (
	payButton   chromedp.CSS = `main [data-do=pay]:not([hidden])`
	cardButton  chromedp.CSS = `#card-pay`
	breakButton chromedp.CSS = `#card-break`
)

func TestBrowserPays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	// A double click opens one request and makes one context.
	do(t, ctx, chromedp.DoubleClick(payButton), chromedp.WaitVisible(cardButton))
	shown(t, ctx, "card")
	wantFocus(t, ctx)
	wantEvents(t, s.house, "LinkOpened", "ContextIssued")
	do(t, ctx, chromedp.DoubleClick(cardButton))
	heading, announced := shown(t, ctx, "paid")
	if heading != "Payment received" || !strings.Contains(announced, heading) {
		t.Errorf("the page says %q and announces %q", heading, announced)
	}
	wantFocus(t, ctx)
	wantEvents(t, s.house, "LinkOpened", "ContextIssued", "AttemptStarted", "AttemptAnswered")
	do(t, ctx, chromedp.Click(chromedp.CSS("#receipt button")), chromedp.WaitVisible(`//h1[text()="the receipt"]`))
	wantEvents(t, s.house, "LinkOpened", "ContextIssued", "AttemptStarted", "AttemptAnswered", "ReceiptViewed")
	// Back from the receipt, the page shows how things are now.
	do(t, ctx, chromedp.NavigateBack())
	shown(t, ctx, "paid")
	if n := s.platform.charges.Load(); n != 1 {
		t.Errorf("%d charges", n)
	}
}

// current opens a request's windows by the wall clock, which the browser lives by.
func current(r *conversations.PaymentRequest) { r.OpenBy = time.Now().Add(time.Hour) }

func TestBrowserLoadsAndCallsNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*conversations.PaymentRequest){
		"not opened": current,
		"opened": func(r *conversations.PaymentRequest) {
			end := time.Now().Add(time.Hour)
			r.PayBy = &end
		},
		"declined": func(r *conversations.PaymentRequest) {
			attempted(conversations.AttemptDeclined, false)(r)
			end := time.Now().Add(time.Hour)
			r.PayBy = &end
		},
		"paid": lifecycle(conversations.Paid, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.add("r1", change)
			ctx := newTab(t)
			var calls []string
			var mu sync.Mutex
			if err := chromedp.Listen(ctx, func(event any) {
				if sent, ok := event.(*network.EventRequestWillBeSent); ok {
					mu.Lock()
					defer mu.Unlock()
					calls = append(calls, sent.Request.Method+" "+sent.Request.URL)
				}
			}); err != nil {
				t.Fatal(err)
			}
			if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
				t.Fatal(err)
			}
			s.visit(t, ctx, "r1")
			// Absence has no event to wait for: three seconds are what this test is about.
			get(t, ctx, chromedp.Evaluate[bool](`window.scrollTo(0, 9999), true`))
			do(t, ctx, chromedp.Sleep(3*time.Second))
			mu.Lock()
			defer mu.Unlock()
			calls = slices.DeleteFunc(calls, func(call string) bool { return strings.HasSuffix(call, "/favicon.ico") })
			if len(calls) != 2 { // the short link and the page itself
				t.Errorf("the page called %v", calls)
			}
			if s.posts.Load() != 0 || s.libraryCalls.Load() != 0 {
				t.Errorf("%d posts, %d calls of the library", s.posts.Load(), s.libraryCalls.Load())
			}
			wantEvents(t, s.house)
		})
	}
}

func TestBrowserDeclinedThenPaid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	first := true
	s.platform.answer = func(r platforms.ChargeRequest) conversations.Result {
		if first {
			first = false
			return declined(r)
		}
		return captured(r)
	}
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(cardButton))
	if heading, _ := shown(t, ctx, "declined"); heading != "The payment did not go through" {
		t.Errorf("the page says %q", heading)
	}
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(chromedp.CSS(`#card-pay[data-context=context-2]`)), chromedp.Click(cardButton))
	shown(t, ctx, "paid")
	if n := s.libraryCalls.Load(); n != 1 {
		t.Errorf("the library was fetched %d times", n)
	}
}

func TestBrowserWaitsForAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	s.platform.answer = func(platforms.ChargeRequest) conversations.Result {
		return conversations.Result{Outcome: conversations.OutcomeUnknown}
	}
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(cardButton))
	shown(t, ctx, "processing")
	if _, err := s.store.Apply(ctx, "contact-r1", conversations.AttemptAnswered{
		RequestID: "r1", Attempt: 1, Asked: true, Result: conversations.Result{Outcome: conversations.OutcomeCaptured, Amount: zar(14900)},
	}, conversations.Once{}); err != nil {
		t.Fatal(err)
	}
	shown(t, ctx, "paid")
}

func TestBrowserRecovers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")

	s.refuse.Store(true)
	do(t, ctx, chromedp.Click(payButton))
	if heading, _ := shown(t, ctx, "trouble"); heading != "Something got in the way" {
		t.Errorf("without a server the page says %q", heading)
	}
	wantFocus(t, ctx)
	s.refuse.Store(false)
	s.broken.Store(true)
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(`//p[contains(., "secure card form could not be loaded")]`))
	s.broken.Store(false)
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(breakButton))
	shown(t, ctx, "trouble")
	message := get(t, ctx, chromedp.Text(chromedp.CSS("main .message")))
	if !strings.Contains(message, "stopped before the payment was sent") {
		t.Errorf("a broken form: the page says %q", message)
	}
	// The charge never arrives: the page finds out that nothing was begun.
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton))
	s.refuse.Store(true)
	do(t, ctx, chromedp.Click(cardButton))
	shown(t, ctx, "processing")
	shown(t, ctx, "trouble")
	s.refuse.Store(false)
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(cardButton))
	shown(t, ctx, "paid")
	if n := s.platform.charges.Load(); n != 1 {
		t.Errorf("%d charges", n)
	}
}

func TestBrowserRefusesAnotherLibrary(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	s.tampered.Store(true)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(`//p[contains(., "secure card form could not be loaded")]`))
	if s.libraryCalls.Load() == 0 || get(t, ctx, chromedp.Evaluate[bool](`window.tampered === true`)) {
		t.Error("a library with another hash was run, or none was fetched")
	}
}

func TestBrowserOffersMoreTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", func(r *conversations.PaymentRequest) {
		end := time.Now().Add(90 * time.Second)
		r.PayBy = &end
	})
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.WaitVisible(chromedp.CSS("#extend")), chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(chromedp.CSS("#extend")),
		chromedp.WaitNotVisible(chromedp.CSS("#extend")), chromedp.WaitVisible(chromedp.CSS("#clock")))
	// The card form is left alone.
	shown(t, ctx, "card")
	wantEvents(t, s.house, "ContextIssued", "CustomerExtended")
	left := get(t, ctx, chromedp.Text(chromedp.CSS("#left")))
	if !strings.HasPrefix(left, "14:") && left != "15:00" {
		t.Errorf("the time left is %q", left)
	}
}

func TestBrowserRenewsTheForm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton))
	// Half a minute passes; sooner than that, an expired context is taken for a fault.
	get(t, ctx, chromedp.Evaluate[bool](`(() => { const now = Date.now; Date.now = () => now() + 30000; return true; })()`))
	do(t, ctx, chromedp.Click(chromedp.CSS("#card-expire")), chromedp.WaitVisible(chromedp.CSS(`#card-pay[data-context=context-2]`)))
	if _, announced := shown(t, ctx, "card"); !strings.Contains(announced, "card form was renewed") {
		t.Errorf("the page announces %q", announced)
	}
	wantEvents(t, s.house, "LinkOpened", "ContextIssued", "ContextIssued")
	do(t, ctx, chromedp.Click(cardButton))
	shown(t, ctx, "paid")
}

func TestBrowserShowsTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", func(r *conversations.PaymentRequest) {
		end := time.Now().Add(4 * time.Second)
		r.PayBy = &end
	})
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	shown(t, ctx, "ask")
	s.store.advance(5 * time.Second)
	if heading, _ := shown(t, ctx, "expired"); heading != "This payment request has ended" {
		t.Errorf("the page says %q", heading)
	}
	if n := s.posts.Load(); n != 0 {
		t.Errorf("%d posts", n)
	}
}

// payable opens a request's window by the wall clock.
func payable(r *conversations.PaymentRequest) {
	opened(r)
	end := time.Now().Add(time.Hour)
	r.PayBy = &end
	r.Contexts[0].ExpiresAt = end
}

// TestBrowserWaitsBeforeTheNextTry: after too many declines the page counts the
// wait down, and offers the next try by itself.
func TestBrowserWaitsBeforeTheNextTry(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", payable)
	s.platform.answer = declined
	s.decline("contact-r1", 3, time.Minute)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(cardButton))
	// The fourth decline: the page knows before a card is typed in vain.
	heading, announced := shown(t, ctx, "too_soon")
	if heading != "Please wait before you try again" || !strings.Contains(announced, "You can try again in 10 seconds") {
		t.Errorf("the page says %q and announces %q", heading, announced)
	}
	wantFocus(t, ctx)
	if left := get(t, ctx, chromedp.Text(chromedp.CSS("#wait-left"))); !strings.HasPrefix(left, "0:") {
		t.Errorf("the wait is shown as %q", left)
	}
	if get(t, ctx, chromedp.Evaluate[bool](`!document.getElementById("again").hidden`)) {
		t.Error("there is a button that would be refused")
	}
	do(t, ctx, chromedp.WaitVisible(chromedp.CSS("#clock"))) // the time to pay goes on, and may be extended
	posts := s.posts.Load()
	s.store.advance(10 * time.Second) // to the very end of it, and the browser's clock a little further
	get(t, ctx, chromedp.Evaluate[bool](`(() => { const now = Date.now; Date.now = () => now() + 11000; return true; })()`))
	shown(t, ctx, "declined")
	do(t, ctx, chromedp.WaitVisible(payButton))
	if s.posts.Load() != posts {
		t.Error("waiting changed something")
	}
	s.platform.answer = captured
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(chromedp.CSS(`#card-pay[data-context=context-2]`)), chromedp.Click(cardButton))
	shown(t, ctx, "paid")
}

// TestBrowserSaysWhatItWaitsFor: while an outcome is not known, the page
// changes its words with what is known.
func TestBrowserSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", payable)
	s.platform.answer = func(platforms.ChargeRequest) conversations.Result {
		return conversations.Result{Outcome: conversations.OutcomeUnknown}
	}
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	do(t, ctx, chromedp.Click(payButton), chromedp.WaitVisible(cardButton), chromedp.Click(cardButton))
	do(t, ctx, chromedp.WaitVisible(`//h1[text()="We are checking your payment"]`))
	if _, err := s.store.Apply(ctx, "contact-r1", conversations.AttemptAnswered{
		RequestID: "r1", Attempt: 1, Asked: true, Result: conversations.Result{Outcome: conversations.OutcomeRiskDeclined, PaymentID: "p", Amount: zar(14900)},
	}, conversations.Once{}); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, chromedp.WaitVisible(`//p[contains(., "is being released")]`))
	wantFocus(t, ctx)
	s.store.edit("r1", because(conversations.AttemptReversed, "DECISION_PROFILE_REJECT"))
	s.store.edit("r1", func(r *conversations.PaymentRequest) {
		r.Lifecycle = conversations.Open
		end := time.Now().Add(time.Hour)
		r.PayBy = &end
	})
	do(t, ctx, chromedp.WaitVisible(`//p[contains(., "has been released")]`), chromedp.WaitVisible(payButton))
}

// TestBrowserByKeyboard pays, after a decline, without a pointer.
func TestBrowserByKeyboard(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	first := true
	s.platform.answer = func(r platforms.ChargeRequest) conversations.Result {
		if first {
			first = false
			return declined(r)
		}
		return captured(r)
	}
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	// press moves the focus forward to an element, and presses Enter there.
	press := func(selector string) {
		t.Helper()
		for range 30 {
			do(t, ctx, chromedp.KeyEvent(kb.Tab))
			if get(t, ctx, chromedp.Evaluate[bool](`document.activeElement.matches(`+strconv.Quote(selector)+`)`)) {
				do(t, ctx, chromedp.KeyEvent(kb.Enter))
				return
			}
		}
		t.Fatalf("the keyboard does not reach %s", selector)
	}
	press("[data-do=pay]")
	do(t, ctx, chromedp.WaitVisible(cardButton))
	press("#card-pay")
	shown(t, ctx, "declined")
	wantFocus(t, ctx)
	press("[data-do=pay]")
	do(t, ctx, chromedp.WaitVisible(chromedp.CSS(`#card-pay[data-context=context-2]`)))
	press("#card-pay")
	shown(t, ctx, "paid")
	press("#receipt button")
	do(t, ctx, chromedp.WaitVisible(`//h1[text()="the receipt"]`))
}

// TestBrowserWithoutStyles: what is hidden stays so, and nothing is said by
// looks alone.
func TestBrowserWithoutStyles(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", payable)
	s.decline("contact-r1", 9, lastDecline)
	ctx := newTab(t)
	s.visit(t, ctx, "r1")
	get(t, ctx, chromedp.Evaluate[bool](`[...document.styleSheets].forEach((s) => { s.disabled = true; }), true`))
	shown(t, ctx, "too_soon")
	text := get(t, ctx, chromedp.Text(chromedp.CSS("body")))
	for _, want := range []string{"Please wait before you try again", "You can try again in", "ZAR 149.00", "Test payment"} {
		if !strings.Contains(text, want) {
			t.Errorf("without styles the page does not say %q:\n%s", want, text)
		}
	}
	for _, hidden := range []string{"View receipt", "Try again\n", "I need more time"} {
		if strings.Contains(text, hidden) {
			t.Errorf("without styles the page shows %q:\n%s", hidden, text)
		}
	}
	if n := get(t, ctx, chromedp.Evaluate[int](`[...document.querySelectorAll("svg")].filter((s) => s.getBoundingClientRect().width > 60).length`)); n > 0 {
		t.Errorf("%d drawings fill the page without styles", n)
	}
}

func TestBrowserWithoutScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add("r1", current)
	ctx := newTab(t)
	if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
		t.Fatal(err)
	}
	do(t, ctx, chromedp.Navigate(s.public+"/p/link-r1"))
	text := get(t, ctx, chromedp.Text(chromedp.CSS("body")))
	for _, want := range []string{"needs JavaScript", "ZAR 149.00", "Order 1042"} {
		if !strings.Contains(text, want) {
			t.Errorf("without a script the page does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Continue to payment") {
		t.Error("without a script the page has a button that does nothing")
	}
}

// TestPictures writes what each screen looks like, for people to judge.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("pictures are made with -pictures FOLDER")
	}
	s := newSite(t)
	for name, change := range screens {
		s.add(name, func(r *conversations.PaymentRequest) {
			r.OpenBy = time.Now().Add(time.Hour)
			if change != nil {
				change(r)
			}
			if r.PayBy != nil && r.PayBy.After(start) {
				end := time.Now().Add(9 * time.Minute)
				r.PayBy = &end
			}
		})
		s.decline("contact-"+name, declinesOf[name], lastDecline)
	}
	shoot := func(name string, width int64, dark bool, steps ...chromedp.Action[chromedp.Void]) {
		ctx := newTab(t)
		scheme := "light"
		if dark {
			scheme = "dark"
		}
		if _, err := chromedp.Call(ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: 844, DeviceScaleFactor: 1, Mobile: width < 500,
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		}); err != nil {
			t.Fatal(err)
		}
		do(t, ctx, append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(s.public + "/p/link-" + name), chromedp.WaitReady(chromedp.CSS("#main"))}, steps...)...)
		picture := get(t, ctx, chromedp.FullScreenshot(100))
		suffix := ""
		if len(steps) > 0 {
			suffix = "_card"
		}
		file := filepath.Join(*pictures, fmt.Sprintf("%s%s_%d_%s.png", name, suffix, width, scheme))
		if err := os.WriteFile(file, picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name := range screens {
		for _, width := range []int64{390, 1280} {
			shoot(name, width, false)
			shoot(name, width, true)
		}
	}
	shoot("ask", 360, true)
	shoot("opened", 390, false, chromedp.Click(payButton), chromedp.WaitVisible(cardButton))
}
