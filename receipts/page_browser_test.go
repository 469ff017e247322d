package receipts_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

var pictures = flag.String("pictures", "", "folder to write a picture of each receipt to")

// newBrowser starts a browser of the test's own, without which these tests
// cannot say anything.
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
		t.Fatal("there is no Chromium for the receipt's tests: apt-get install chromium")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	dir := t.TempDir() // also for what it leaves behind in TMPDIR
	ctx, cancel = chromedp.NewExecAllocator(ctx,
		chromedp.ExecPath(path), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		// The address bar, which nobody looks at, would bring two pages of its own to each window.
		chromedp.Flag("disable-features", "WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.UserDataDir(dir), chromedp.Env("TMPDIR="+dir))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// serve lets a browser visit the house at the returned address.
func serve(t *testing.T) (h *house, receipt string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	public := "http://" + listener.Addr().String()
	h = newHouse(t, public)
	done := make(chan error, 1)
	go func() { done <- h.app.Listener(listener) }()
	t.Cleanup(func() {
		if err := h.app.ShutdownWithTimeout(5 * time.Second); err != nil {
			t.Log("shutdown:", err) // a browser's idle connection; the test has ended
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return h, public + "/receipts/good.%s@" + listener.Addr().String()
}

func TestBrowserReportsAPerson(t *testing.T) {
	t.Parallel()
	h, address := serve(t)
	ctx := newBrowser(t)
	for name, input := range map[string]chromedp.Action[chromedp.Void]{
		"key":     chromedp.KeyEvent("a"),
		"pointer": chromedp.Click(chromedp.CSS("h1")),
		"touch":   chromedp.Tap(chromedp.CSS("h1")),
		"button":  chromedp.Click(chromedp.CSS("#print")),
	} {
		h.store.mu.Lock()
		h.store.requests[name] = paid(name)
		h.store.events = nil
		h.store.mu.Unlock()
		if err := chromedp.Do(ctx, chromedp.Navigate(fmt.Sprintf(address, name)), chromedp.WaitVisible(chromedp.CSS("#print"))); err != nil {
			t.Fatal(err)
		}
		// What a scanner does is no person's input. Absence has no event to wait for.
		if _, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`window.print = () => {}; window.scrollTo(0, 500);
			document.body.dispatchEvent(new KeyboardEvent("keydown", {bubbles: true})); document.getElementById("print").click(); true`)); err != nil {
			t.Fatal(err)
		}
		if err := chromedp.Do(ctx, chromedp.Sleep(time.Second)); err != nil {
			t.Fatal(err)
		}
		if n := h.store.views(); n != 0 {
			t.Errorf("%s: %d views before it", name, n)
		}
		if err := chromedp.Do(ctx, input, input); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); h.store.views() == 0 && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond) // polling the store, which another process's call reaches
		}
		if n := h.store.views(); n != 1 {
			t.Errorf("%s: %d views after it, want one", name, n)
		}
	}
}

// TestPictures writes what each receipt looks like, for people to judge.
func TestPictures(t *testing.T) {
	if *pictures == "" {
		t.Skip("pictures are made with -pictures FOLDER")
	}
	h, address := serve(t)
	ctx := newBrowser(t)
	for name, change := range documents {
		r := paid(name)
		change(r)
		h.store.requests[name] = r
		for _, width := range []int64{390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
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
				if err := chromedp.Do(ctx, chromedp.Navigate(fmt.Sprintf(address, name)), chromedp.WaitReady(chromedp.CSS("main"))); err != nil {
					t.Fatal(err)
				}
				photograph(t, ctx, fmt.Sprintf("receipt_%s_%d_%s.png", name, width, scheme))
			}
		}
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
			t.Fatal(err)
		}
		photograph(t, ctx, fmt.Sprintf("receipt_%s_print.png", name))
	}
}

// photograph writes what the browser shows now.
func photograph(t *testing.T, ctx context.Context, name string) {
	t.Helper()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*pictures, name), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}
