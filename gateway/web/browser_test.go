package web_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"html/template"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// screenshots is where TestScreenshots leaves its pictures, for whoever works
// on the looks.
var screenshots = flag.String("screenshots", "", "write pictures of the panel into this folder")

const patience = 30 * time.Second // for anything that a browser has to get round to

var chromium struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if chromium.stop != nil {
		chromium.stop()
	}
	os.Exit(code)
}

// startChromium starts the one browser that the tests of this package share.
func startChromium() {
	binary := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		chromium.err = fmt.Errorf("no Chromium on this machine; install it with: apt-get install chromium")
		return
	}
	profile, err := os.MkdirTemp("", "paythread-panel-")
	if err != nil {
		chromium.err = err
		return
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(binary), chromedp.UserDataDir(profile), chromedp.Env("TMPDIR="+profile),
		chromedp.NoSandbox, chromedp.Headless, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		// The address bar, which nobody looks at, would bring two pages of its own to each window.
		chromedp.Flag("disable-features", "Translate,WebUIOmniboxPopup,WebUIOmniboxAimPopup"))
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	browser, stopBrowser := chromedp.NewContext(allocator)
	chromium.ctx = browser
	chromium.stop = func() {
		stopBrowser()
		stopAllocator()
		_ = os.RemoveAll(profile) // the system clears its temporary folder
	}
	chromium.err = chromedp.Do(browser)
}

// tab is one page in a browser of its own profile.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func newTab(t *testing.T, address string, width, height int64) *tab {
	t.Helper()
	chromium.once.Do(startChromium)
	if chromium.err != nil {
		t.Fatalf("start Chromium: %v", chromium.err)
	}
	ctx, cancel := chromedp.NewContext(chromium.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	// The tab lives as long as the context of its first call, so that one has no time limit.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	b := &tab{t, ctx}
	b.run("open "+address, chromedp.EmulateViewport(width, height), chromedp.Navigate(address))
	return b
}

func (b *tab) run(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v\npanel: %s", what, err, b.text())
	}
}

// text returns what the panel shows, for failure texts.
func (b *tab) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector('paythread-panel')?.shadowRoot.querySelector('main').innerText ?? document.body.innerText`))
	if err != nil {
		return "(not to be had: " + err.Error() + ")"
	}
	return text
}

// inPanel is the JavaScript path of an element inside the panel.
func inPanel(selector string) string {
	return fmt.Sprintf("document.querySelector('paythread-panel').shadowRoot.querySelector(%q)", selector)
}

// script wraps an expression so that "$" in it finds inside the panel.
func script(expression string) string {
	return "(($) => (" + expression + "))((s) => document.querySelector('paythread-panel')?.shadowRoot.querySelector(s))"
}

// await waits until a JavaScript expression is true; one that throws is not.
// It asks from outside, since the page's own policy forbids it to evaluate.
func (b *tab) await(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		holds, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("(() => { try { return Boolean("+script(expression)+") } catch { return false } })()"))
		if holds {
			return
		}
		if err != nil && ctx.Err() == nil {
			b.t.Fatalf("await %s: %v", expression, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("never true: %s\npanel: %s", expression, b.text())
		}
	}
}

// eval returns the value of a JavaScript expression.
func eval[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](script(expression)))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return value
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.run("click "+selector, chromedp.Click(chromedp.JSPath(inPanel(selector))))
}

// fill replaces what is in a field by typing.
func (b *tab) fill(selector, text string) {
	b.t.Helper()
	b.run("fill "+selector, chromedp.Focus(chromedp.JSPath(inPanel(selector))),
		chromedp.Evaluate[chromedp.Void](inPanel(selector)+".select()"), chromedp.KeyEvent(kb.Backspace), chromedp.KeyEvent(text))
}

func (b *tab) keys(keys ...string) {
	b.t.Helper()
	for _, key := range keys {
		b.run("press a key", chromedp.KeyEvent(key))
	}
}

// tabTo moves the focus by the Tab key until it is on the element.
func (b *tab) tabTo(selector string) {
	b.t.Helper()
	for range 40 {
		if eval[bool](b, fmt.Sprintf("document.querySelector('paythread-panel').shadowRoot.activeElement?.matches(%q) ?? false", selector)) {
			return
		}
		b.keys(kb.Tab)
	}
	b.t.Fatalf("Tab never reaches %s", selector)
}

func (b *tab) picture(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// hostPage is a merchant's page on another origin, with the strictest content
// policy under which the panel must work.
var hostPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Order</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<script src="/record.js"></script><script src="{{.Gateway}}/extension/paythread.js" crossorigin defer></script>
<paythread-panel token="{{.Token}}" gateway="{{.Gateway}}"></paythread-panel></html>`))

// recorder notes what the panel tells its page.
const recorder = `
window.heard = []; window.needed = 0; window.violations = [];
addEventListener('paythread-status', (e) => heard.push(e.detail));
addEventListener('paythread-token-needed', () => needed++);
addEventListener('securitypolicyviolation', (e) => violations.push(e.violatedDirective));`

func (g *fakeGateway) openPanel(t *testing.T, token string, width, height int64) *tab {
	t.Helper()
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/record.js" {
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(recorder))
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; script-src 'self' "+g.URL+"; connect-src "+g.URL)
		_ = hostPage.Execute(w, struct{ Gateway, Token string }{g.URL, token})
	}))
	t.Cleanup(host.Close)
	return newTab(t, host.URL, width, height)
}

// heard returns the numbers of the events that the page was told of, in order.
func (b *tab) heard() []int {
	b.t.Helper()
	return eval[[]int](b, "heard.map((e) => e.seq)")
}

func (b *tab) setToken(token string) {
	b.t.Helper()
	quoted, err := json.Marshal(token)
	if err != nil {
		b.t.Fatal(err)
	}
	b.run("set a token", chromedp.Evaluate[chromedp.Void](fmt.Sprintf("void document.querySelector('paythread-panel').setAttribute('token', %s)", quoted)))
}
