package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	browserpage "github.com/chromedp/cdproto/page"
	browsertarget "github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// chromium is one headless browser. Everybody in a story has a profile of their
// own in it.
type chromium struct {
	ctx      context.Context
	pictures string // folder, empty for none
}

// startChromium starts a browser that ends with the test. Where there is none
// the test fails: what people see is not to be taken on trust.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	binary := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		t.Fatal("there is no Chromium on this machine; install it with: apt-get install chromium")
	}
	flags := []string{
		"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage",
		// Two people look at their pages at the same time: neither is in the background.
		"disable-renderer-backgrounding", "disable-background-timer-throttling", "disable-backgrounding-occluded-windows",
	}
	dir := t.TempDir() // also for what it leaves behind in TMPDIR
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(binary), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.UserDataDir(dir), chromedp.Env("TMPDIR=" + dir), chromedp.WSURLReadTimeout(time.Minute),
		// The address bar, which nobody looks at, would bring two pages of its own to each window.
		chromedp.Flag("disable-features", "WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
	}
	for _, flag := range flags {
		options = append(options, chromedp.Flag(flag, true))
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, quit := chromedp.NewContext(allocator)
	t.Cleanup(quit)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	c := &chromium{ctx: ctx}
	if os.Getenv("STORY_PICTURES") != "" {
		dir, err := os.MkdirTemp("", "paythread-pictures-")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("pictures are in %s", dir)
		c.pictures = dir
	}
	return c
}

// screen is what somebody looks at: a size, and whether it is a phone's.
type screen struct {
	width, height int64
	phone         bool
}

var (
	desk   = screen{1280, 900, false}
	pocket = screen{390, 844, true}
)

// person uses a browser as people do: by what stands on the screen.
type person struct {
	t     *testing.T
	ctx   context.Context
	who   string
	at    screen
	pics  string
	known map[browsertarget.ID]bool // tabs and frames that were dealt with
}

// person gives somebody a browser profile and shows them a page.
func (c *chromium) person(t *testing.T, who string, at screen, address string) *person {
	t.Helper()
	ctx, leave := chromedp.NewContext(c.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(leave)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("%s: open a window: %v", who, err)
	}
	p := &person{t: t, ctx: ctx, who: who, at: at, pics: c.pictures, known: map[browsertarget.ID]bool{}}
	p.do("look at "+address, p.size(), chromedp.Navigate(address))
	return p
}

func (p *person) size() chromedp.Action[chromedp.Void] {
	if p.at.phone {
		return chromedp.EmulateViewport(p.at.width, p.at.height, chromedp.EmulateMobile, chromedp.EmulatePortrait)
	}
	return chromedp.EmulateViewport(p.at.width, p.at.height)
}

// do runs steps in the browser within the story's patience.
func (p *person) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%s: %s: %v", p.who, what, err)
	}
}

// eyes is what a person makes of a page, in JavaScript: it sees what is shown,
// into open shadow trees, and knows things by the words on them.
const eyes = `(() => {
  const tidy = (s) => (s || "").replace(/\s+/g, " ").trim();
  const all = (root) => [...root.querySelectorAll("*")].flatMap((e) => (e.shadowRoot ? [e, ...all(e.shadowRoot)] : [e]));
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const called = (e) => tidy(e.getAttribute("aria-label") || (e.labels && e.labels.length ? e.labels[0].innerText : e.innerText));
  const kinds = {
    button: "button, a[href], summary, [role=button]",
    field: "input:not([type=radio]):not([type=checkbox]), textarea, select",
    choice: "label:has(input[type=radio]), label:has(input[type=checkbox])",
  };
  const deepest = () => {
    let e = document.activeElement;
    while (e && e.shadowRoot && e.shadowRoot.activeElement) e = e.shadowRoot.activeElement;
    return e;
  };
  const best = (list, name) => list.findLast((e) => called(e) === name) || list.findLast((e) => called(e).startsWith(name)) || list.findLast((e) => called(e).includes(name));
  return {
    text() {
      const trees = all(document).filter((e) => e.shadowRoot && shown(e)).flatMap((e) => [...e.shadowRoot.children]).filter(shown);
      return tidy([document.body, ...trees].map((e) => e.innerText).join(" "));
    },
    // where tells the middle of a thing that can be pressed now; null if there is none, or something lies over it.
    where(kind, name) {
      if (document.readyState !== "complete") return null; // its scripts do not listen yet
      const e = best(all(document).filter((e) => e.matches(kinds[kind]) && shown(e) && !e.disabled && e.getAttribute("aria-disabled") !== "true"), name);
      if (!e) return null;
      e.scrollIntoView({ block: "center", behavior: "instant" });
      const box = e.getClientRects()[0], x = box.x + box.width / 2, y = box.y + box.height / 2;
      const over = e.getRootNode().elementFromPoint(x, y);
      return over && (e.contains(over) || over.contains(e)) ? { x, y } : null;
    },
    focus: () => (deepest() && deepest().matches([...Object.values(kinds), "input"].join(",")) ? called(deepest()) : ""),
    chosen: (name) => all(document).some((e) => e.matches(kinds.choice) && shown(e) && called(e) === name && e.querySelector("input").checked),
    status: () => all(document).filter((e) => e.matches("[role=status]") && shown(e)).map((e) => tidy(e.innerText)),
    things: () => all(document).filter((e) => e.matches(Object.values(kinds).join(",")) && shown(e)).map(called),
  };
})()`

// look evaluates an expression about what eyes sees.
func look[T any](p *person, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	// From outside: the page's own policy forbids it to evaluate.
	return chromedp.Run(ctx, chromedp.Evaluate[T](eyes+"."+expression))
}

func quoted(values ...string) string {
	var all []string
	for _, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // a string is always JSON
		}
		all = append(all, string(b))
	}
	return strings.Join(all, ", ")
}

// await waits until something holds; a page that is being replaced has no
// answer for the moment.
func (p *person) await(what string, holds func() (bool, error)) {
	p.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := holds()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			text, _ := look[string](p, "text()") // the failure is told without it, too
			things, _ := look[[]string](p, "things()")
			p.t.Fatalf("%s waited in vain: %s (%v)\non the screen: %s\nto be pressed or filled: %q", p.who, what, err, text, things)
		}
	}
}

// sees waits until the words stand on the screen.
func (p *person) sees(words string) {
	p.t.Helper()
	p.await("to see "+words, func() (bool, error) {
		text, err := look[string](p, "text()")
		return strings.Contains(text, words), err
	})
}

// seesStatus waits until a status on the page says exactly the words.
func (p *person) seesStatus(words string) {
	p.t.Helper()
	p.await("a status to say "+words, func() (bool, error) { return look[bool](p, "status().includes("+quoted(words)+")") })
}

type point struct{ X, Y float64 }

// where waits until a thing is there, lies free and has come to rest.
func (p *person) where(kind, name string) point {
	p.t.Helper()
	var last point
	p.await(fmt.Sprintf("the %s %q", kind, name), func() (bool, error) {
		at, err := look[*point](p, "where("+quoted(kind, name)+")")
		if at == nil || err != nil {
			last = point{}
			return false, err
		}
		rests := *at == last
		last = *at
		return rests, nil
	})
	return last
}

// presses clicks a button or link by the words on it.
func (p *person) presses(name string) {
	p.t.Helper()
	at := p.where("button", name)
	p.do("press "+name, chromedp.MouseClickXY(at.X, at.Y))
}

// chooses clicks one of several choices by the words on it, and looks whether
// it took.
func (p *person) chooses(name string) {
	p.t.Helper()
	p.await("to have chosen "+name, func() (bool, error) {
		at := p.where("choice", name)
		p.do("choose "+name, chromedp.MouseClickXY(at.X, at.Y))
		return look[bool](p, "chosen("+quoted(name)+")")
	})
}

// types replaces what is in a field, named by its label.
func (p *person) types(label, text string) {
	p.t.Helper()
	at := p.where("field", label)
	p.do("type into "+label, chromedp.MouseClickXY(at.X, at.Y), chromedp.Evaluate[chromedp.Void]("document.execCommand('selectAll')"), chromedp.KeyEvent(text))
}

// keys presses keys, each argument a text or a named key.
func (p *person) keys(keys ...string) {
	p.t.Helper()
	for _, key := range keys {
		p.do("press a key", chromedp.KeyEvent(key))
	}
}

// tabsTo presses Tab until the focus is on something with these words.
func (p *person) tabsTo(name string) {
	p.t.Helper()
	var passed []string
	for range 60 {
		on, err := look[string](p, "focus()")
		if err != nil {
			p.t.Fatalf("%s: where is the focus: %v", p.who, err)
		}
		if strings.HasPrefix(on, name) || strings.Contains(on, " "+name) {
			return
		}
		passed = append(passed, on)
		p.keys(kb.Tab)
	}
	p.t.Fatalf("%s: Tab never reaches %q, only %q", p.who, name, passed)
}

// follows waits for the tab that a press has opened, and looks at it.
func (p *person) follows(address string) *person {
	p.t.Helper()
	tab := p.attach("page", address)
	tab.do("take the phone's size", tab.size())
	return tab
}

// frame waits for a frame of another origin, such as the card form.
func (p *person) frame(address string) *person {
	p.t.Helper()
	return p.attach("iframe", address)
}

// attach waits for a tab or frame that was not there before.
func (p *person) attach(kind, address string) *person {
	p.t.Helper()
	var found browsertarget.ID
	p.await("a "+kind+" at "+address, func() (bool, error) {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		defer cancel()
		infos, err := chromedp.Targets(ctx)
		for _, info := range infos {
			if info.Type == kind && !p.known[info.TargetID] && strings.HasPrefix(info.URL, address) {
				found = info.TargetID
			}
		}
		return found != "", err
	})
	p.known[found] = true
	ctx, leave := chromedp.NewContext(p.ctx, chromedp.WithTargetID(found))
	p.t.Cleanup(leave)
	other := *p
	other.ctx = ctx
	if err := chromedp.Do(ctx); err != nil {
		p.t.Fatalf("%s: look at a %s: %v", p.who, kind, err)
	}
	return &other
}

// returns brings the tab to the front again.
func (p *person) returns() {
	p.t.Helper()
	p.do("return", chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, browserpage.BringToFront, cdp.Empty{})
		return err
	}))
}

// picture keeps what the screen shows, and would show at the other width, for
// whoever judges the looks.
func (p *person) picture(name string) {
	p.t.Helper()
	if p.pics == "" {
		return
	}
	own := p.at
	for _, at := range []screen{desk, pocket} {
		p.at = at
		p.do("take another screen", p.size())
		time.Sleep(800 * time.Millisecond) // frames are painted by other processes, which tell nobody
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		cancel()
		if err != nil {
			p.t.Fatalf("%s: take a picture: %v", p.who, err)
		}
		if err := os.WriteFile(filepath.Join(p.pics, fmt.Sprintf("%s-%d.png", name, at.width)), png, 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	p.at = own
	p.do("take the own screen again", p.size())
}
