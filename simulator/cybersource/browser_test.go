package cybersource

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

var screenshots = flag.String("screenshots", "", "folder that gets pictures of the card form")

// hostScript is a merchant's page: it starts the library and keeps what comes back for the test.
const hostScript = `
window.violations = []; window.events = []; window.outcomes = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.violatedDirective));
window.start = async (jwt, options, containers) => {
  try {
    window.client = await VAS.UnifiedCheckout(jwt);
    window.checkout = await window.client.createCheckout(options);
    window.checkout.on("*", (e) => window.events.push(e.type));
    window.outcomes.push({ value: await window.checkout.mount(containers) });
  } catch (err) { window.outcomes.push({ name: err.name, reason: err.reason }); }
};
window.again = async () => {
  try { await window.checkout.mount("#a"); } catch (err) { window.outcomes.push({ name: err.name, reason: err.reason }); }
};
window.finish = async (token) => {
  try { window.outcomes.push({ value: await window.checkout.complete(token) }); } catch (err) { window.outcomes.push({ name: err.name, reason: err.reason }); }
};`

// tab is a page or a frame in the browser.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func (b tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// ask evaluates an expression. The browser does it from outside, so that the page's policy allows it.
func ask[T any](b tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to become true.
func (b tab) until(expression string) {
	b.t.Helper()
	await(b.t, expression, func() bool { return ask[bool](b, expression) })
}

func (b tab) click(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

func (b tab) value(selector string) string {
	b.t.Helper()
	return ask[string](b, fmt.Sprintf("document.querySelector(%q).value", selector))
}

func (b tab) text(selector string) string {
	b.t.Helper()
	return ask[string](b, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}

// keys presses keys one after the other, each argument a text or a named key.
func (b tab) keys(texts ...string) {
	b.t.Helper()
	for _, text := range texts {
		b.do(chromedp.KeyEvent(text))
	}
}

// shop is a merchant's page of another origin than the simulator's, under a strict content policy.
type shop struct {
	tab
	w      *world
	origin string
	frames map[target.ID]bool // opened so far; a closed one may be listed for a while
}

// newBrowser starts a headless browser, or fails with what to install.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("this test needs a browser: apt-get install chromium")
	}
	dir := t.TempDir() // also for what it leaves behind in TMPDIR
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(dir), chromedp.Env("TMPDIR="+dir),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		// The address bar, which nobody looks at, would bring two pages of its own to each window.
		chromedp.Flag("disable-features", "Translate,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.WSURLReadTimeout(time.Minute))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, quit := chromedp.NewContext(allocator)
	t.Cleanup(quit)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// newShop opens the page in a tab of its own.
func newShop(t *testing.T, browser context.Context) *shop {
	t.Helper()
	// The browser's clock is the real one, so the simulator's is as well.
	w := newWorld(t, func(c *Config) {
		c.AllowHTTPOrigins = true
		c.Now = time.Now
		c.PublicURL = strings.Replace(c.PublicURL, "127.0.0.1", "localhost", 1)
	})
	w.clock.t = time.Now()
	s := &shop{w: w, frames: map[target.ID]bool{}}
	page := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			rw.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; script-src 'self' %[1]s; frame-src %[1]s; connect-src %[1]s", w.sim.origin))
			rw.Header().Set("Referrer-Policy", "no-referrer")
			rw.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = fmt.Fprintf(rw, `<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>Shop</title><h1>Order 1042</h1><div id="a"></div><div id="b"></div>
<script src="/host.js"></script><script src="%s%s" integrity="%s" crossorigin="anonymous"></script>`, w.sim.origin, w.sim.library.path, w.sim.library.integrity)
		case "/host.js":
			rw.Header().Set("Content-Type", "text/javascript")
			_, _ = rw.Write([]byte(hostScript))
		default:
			http.NotFound(rw, r)
		}
	}))
	t.Cleanup(page.Close)
	s.origin = page.URL

	ctx, closeTab := chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	s.tab = tab{t, ctx}
	s.do(chromedp.Navigate(s.origin))
	s.until(`window.VAS !== undefined && window.start !== undefined`)
	return s
}

// session asks for a context for the shop's own origin.
func (s *shop) session(change ...func(object)) string {
	s.t.Helper()
	s.w.clock.add(time.Since(s.w.clock.now()))
	req := session()
	req["targetOrigins"] = []string{s.origin}
	for _, f := range change {
		f(req)
	}
	r := s.w.post("/uc/v1/sessions", toJSON(s.w.t, req))
	if r.status != http.StatusCreated {
		s.t.Fatalf("sessions: got %d %s", r.status, r.body)
	}
	return r.body
}

// start mounts a checkout without waiting for its outcome.
func (s *shop) start(jwt string, options, containers string) {
	s.t.Helper()
	ask[any](s.tab, fmt.Sprintf(`void window.start(%q, %s, %s), true`, jwt, options, containers))
}

type outcomeOf struct{ Value, Name, Reason string }

// outcome waits for the nth outcome that the page got.
func (s *shop) outcome(n int) outcomeOf {
	s.t.Helper()
	s.until(fmt.Sprintf(`window.outcomes.length >= %d`, n))
	return ask[[]outcomeOf](s.tab, `window.outcomes`)[n-1]
}

// form opens the card form by pressing the button and returns its frame.
func (s *shop) form() tab {
	s.t.Helper()
	s.click(`#a button`)
	var frame target.ID
	await(s.t, "the card form's frame", func() bool {
		infos, err := chromedp.Targets(s.ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, info := range infos {
			if info.Type == "iframe" && !s.frames[info.TargetID] && strings.HasPrefix(info.URL, s.w.sim.origin+"/uc/v1/frames/") {
				frame = info.TargetID
			}
		}
		return frame != ""
	})
	s.frames[frame] = true
	ctx, cancel := chromedp.NewContext(s.ctx, chromedp.WithTargetID(frame))
	s.t.Cleanup(cancel)
	f := tab{s.t, ctx}
	f.until(`document.activeElement?.id === "number"`)
	return f
}

// picture keeps what the page looks like at a width, if the test was asked for pictures.
func (s *shop) picture(name string, width int64) {
	if *screenshots == "" {
		return
	}
	s.t.Helper()
	// The frame is painted by another process, and a picture has no event to wait for.
	s.do(chromedp.EmulateViewport(width, 1500), chromedp.Sleep(1500*time.Millisecond))
	png, err := chromedp.Run(s.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, fmt.Sprintf("%s-%d.png", name, width)), png, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

const both = `{paymentSelection: "#a", paymentScreen: "#b"}`

// One browser serves all: starting it takes longer than the tests.
func TestInABrowser(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	for name, test := range map[string]func(*testing.T, context.Context){
		"a card is typed and charged":         testCardIsTypedAndCharged,
		"the widget completes with a mandate": testWidgetCompletesWithAMandate,
		"the widget refuses contexts":         testWidgetRefusesContexts,
	} {
		t.Run(name, func(t *testing.T) { test(t, browser) })
	}
}

// A person types a card into the frame; the page gets a token and nothing else; the shop charges it.
func testCardIsTypedAndCharged(t *testing.T, browser context.Context) {
	s := newShop(t, browser)
	s.start(s.session(), `{}`, both)
	form := s.form()
	s.picture("empty", 390)
	s.picture("empty", 320)
	s.picture("empty", 1280)
	year := fmt.Sprintf("%02d", (time.Now().Year()+3)%100)

	// Nothing is sent while something is wrong, and the first wrong field has the focus.
	form.keys("4111111111111112", kb.Tab, "0120")
	form.click(`#pay`)
	if got := form.text(`#number-error`); !strings.Contains(got, "one of its digits is wrong") {
		t.Errorf("wrong number: got %q", got)
	}
	if got := form.text(`#expiry-error`); !strings.Contains(got, "expired") {
		t.Errorf("past expiry: got %q", got)
	}
	if got := form.value(`#number`); got != "4111 1111 1111 1112" {
		t.Errorf("number: shown as %q", got)
	}
	form.until(`document.activeElement.id === "number"`)
	s.picture("wrong", 390)
	s.picture("wrong", 1280)

	// The rest by keyboard alone; Enter pays.
	form.keys(kb.End, kb.Backspace, "1", kb.Tab)
	ask[any](form, `document.activeElement.select(), true`)
	form.keys("11"+year, kb.Tab, "123", kb.Tab, "Thandi Mokoena", kb.Tab, "thandi@example.test", kb.Tab, kb.Tab, "1 Long Street", kb.Tab, "Cape Town")
	if got := form.value(`#country`); got != "ZA" {
		t.Errorf("country: got %q, want the context's", got)
	}
	s.picture("filled", 390)
	form.keys(kb.Enter)

	got := s.outcome(1)
	if got.Reason != "" || strings.Count(got.Value, ".") != 2 {
		t.Fatalf("mount: got %+v, want a transient token", got)
	}
	s.w.clock.add(time.Since(s.w.clock.now()))
	r := s.w.pay(payment(got.Value, "INV-1042", "149.99", true))
	wantStatus(t, r, 201, "AUTHORIZED")
	if n := len(s.w.sim.Transactions()); n != 1 {
		t.Errorf("got %d transactions, want 1", n)
	}

	// A second mount is refused, and the page's policy was never touched.
	ask[any](s.tab, `void window.again(), true`)
	if got := s.outcome(2); got.Reason != "CHECKOUT_ALREADY_MOUNTED" || got.Name != "UnifiedCheckoutError" {
		t.Errorf("second mount: got %+v", got)
	}
	ask[any](s.tab, fmt.Sprintf(`void window.finish(%q), true`, got.Value))
	if got := s.outcome(3); got.Reason != "COMPLETE_NOT_ALLOWED" {
		t.Errorf("complete without a mandate: got %+v", got)
	}
	if got := ask[[]string](s.tab, `window.violations`); len(got) > 0 {
		t.Errorf("policy violations: %v", got)
	}
	events := ask[[]string](s.tab, `window.events`)
	for _, want := range []string{"mounted", "ready", "paymentMethodSelected", "paymentMethodUpdate", "error"} {
		if !slices.Contains(events, want) {
			t.Errorf("events: got %v, want %s among them", events, want)
		}
	}
	inner := ask[float64](form, `document.body.getBoundingClientRect().height`)
	s.until(fmt.Sprintf(`Math.abs(document.querySelector("iframe").getBoundingClientRect().height - %v) <= 2`, inner))
	if left := ask[int](s.tab, `window.client.destroy(), document.querySelectorAll("#a *, #b *").length`); left != 0 {
		t.Errorf("destroy left %d elements on the page", left)
	}
}

// With a complete mandate the widget pays by itself and hands out a signed result.
func testWidgetCompletesWithAMandate(t *testing.T, browser context.Context) {
	s := newShop(t, browser)
	jwt := s.session(func(r object) {
		r["completeMandate"] = object{"type": "CAPTURE", "consumerAuthentication": "NONE"}
		r["captureMandate"] = object{"billingType": "FULL", "requestEmail": true}
	})
	s.start(jwt, `{}`, `"#a"`)
	form := s.form()
	// The form goes away and comes back with its button.
	form.click(`#cancel`)
	s.until(`document.querySelector("iframe") === null`)
	form = s.form()
	form.click(`[data-card="4111111111111111"]`)
	s.picture("test-card", 390)
	form.click(`#pay`)
	got := s.outcome(1)
	if got.Reason != "" {
		t.Fatalf("mount: got %+v, want a result", got)
	}
	_, claims := open(t, got.Value, publicKey(t, s.w.published(headerOf(t, got.Value)["kid"].(string))))
	result := response{json: claims}
	if result.text("outcome") != "AUTHORIZED" || result.text("details.clientReferenceInformation.code") != "INV-1001" {
		t.Errorf("result: got %v", claims)
	}
	list := s.w.sim.Transactions()
	if len(list) != 1 || list[0].Kind != KindSale || list[0].ID != result.text("id") || list[0].Amount != "149.99" {
		t.Errorf("transactions: got %+v", list)
	}
}

func testWidgetRefusesContexts(t *testing.T, browser context.Context) {
	s := newShop(t, browser)
	good := s.session()
	expired := func() string {
		s.w.sim.cfg.ContextLife = -time.Second
		defer func() { s.w.sim.cfg.ContextLife = 15 * time.Minute }()
		return s.session()
	}()
	for i, tt := range []struct{ name, jwt, containers, want string }{
		{"not a JWT", "x", both, "CAPTURE_CONTEXT_INVALID"},
		{"forged", good[:len(good)-12] + "AAAAAAAAAAAA", both, "CAPTURE_CONTEXT_INVALID"},
		{"expired", expired, both, "CAPTURE_CONTEXT_EXPIRED"},
		{"another origin", s.session(func(r object) { r["targetOrigins"] = []string{testOrigin} }), both, "UNUSED_TARGET_ORIGINS"},
		{"one origin too many", s.session(func(r object) { r["targetOrigins"] = []string{s.origin, testOrigin} }), both, "UNUSED_TARGET_ORIGINS"},
		{"no such container", good, `"#nowhere"`, "MOUNT_INVALID_CONTAINER"},
		{"not a selector", good, `"#"`, "MOUNT_CONTAINER_SELECTOR"},
	} {
		s.start(tt.jwt, `{}`, tt.containers)
		if got := s.outcome(i + 1); got.Reason != tt.want || got.Name != "UnifiedCheckoutError" {
			t.Errorf("%s: got %+v, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFrameIsForTheTargetOriginsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// What the page says of its ancestors does not make its own origin a target.
	body := toJSON(t, object{"captureContext": w.context(), "ancestorOrigins": []string{testOrigin}})
	ask := func(origin string) response {
		req, err := http.NewRequest("POST", w.server.URL+"/uc/v1/clients", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		res, err := w.server.Client().Do(req)
		return decodeResponse(t, res, err)
	}
	wantRefused(t, ask("https://evil.example.test"), 400, "UNUSED_TARGET_ORIGINS")
	wantRefused(t, ask("null"), 400, "UNUSED_TARGET_ORIGINS")
	made := ask(testOrigin)
	res, err := w.server.Client().Get(w.server.URL + made.text("path"))
	page := decodeResponse(t, res, err)
	if csp := page.header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "frame-ancestors "+testOrigin) {
		t.Errorf("policy: got %q", csp)
	}
	if strings.Contains(page.body, "style=") || strings.Contains(page.body, "onclick") {
		t.Error("the form has inline styles or handlers")
	}
	var settings frameSettings
	_, rest, _ := strings.Cut(page.body, `id="settings">`)
	text, _, _ := strings.Cut(rest, "</script>")
	if err := json.Unmarshal([]byte(text), &settings); err != nil || settings.Origin != testOrigin {
		t.Errorf("settings: got %+v, %v", settings, err)
	}
	// Another site's form cannot post cards: only JSON is taken, which needs a preflight.
	res, err = w.server.Client().Post(w.server.URL+"/flex/v2/tokens", "text/plain", strings.NewReader("{}"))
	wantRefused(t, decodeResponse(t, res, err), 400, "TOKENIZATION_ERROR")
}

func TestTestCardsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for accept, want := range map[string]string{"text/html": "<td class=\"number\">4111 1111 1111 1111</td>", "application/json": `"number":"4111111111111111"`} {
		req, err := http.NewRequest("GET", w.server.URL+"/cybersource/test-cards", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		res, err := w.server.Client().Do(req)
		if r := decodeResponse(t, res, err); r.status != 200 || !strings.Contains(r.body, want) {
			t.Errorf("%s: got %d %s", accept, r.status, r.body)
		}
	}
}
