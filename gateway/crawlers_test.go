package main

import (
	"context"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// crawlers are the user agents of ten programs that fetch every link they see.
var crawlers = []string{
	"WhatsApp/2.24.6.77 A",
	"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_1) AppleWebKit/601.2.4 (KHTML, like Gecko) Version/9.0.1 Safari/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0",
	"TelegramBot (like TwitterBot)",
	"Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
	"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
	"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
	"curl/8.7.1",
}

// lookOn is how long the browser stays on a page: long enough for any script.
const lookOn = 10 * time.Second

// TestFetchingChangesNothing fetches the links of a payment request as crawlers
// do, before and after it is paid, and lets a browser that runs scripts look on:
// nothing is logged, nothing changes, and no company is called.
func TestFetchingChangesNothing(t *testing.T) {
	t.Parallel()
	// The audit would search the platform meanwhile, by itself.
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) { o.Env["AUDIT_EVERY"] = "0s" })
	s.startGateway()
	id, err := s.ask(asked{Order: "1042", Phone: demoCustomer, Channel: "whatsapp", Amount: "149.00"})
	s.must(err)
	s.awaitEvent(id, "delivered")
	c := s.payer(demoCustomer, "whatsapp")

	t.Log("before the customer opens the link")
	s.must(c.follow("/p/"))
	pay := c.page
	s.changesNothing(t, id, c.links("/p/")[0], pay, pay+"/state")

	t.Log("after it was paid")
	s.must(c.open())
	_, err = c.pay(panApproved)
	s.must(err)
	s.awaitEvent(id, "receipt_delivered")
	s.must(c.follow("/r/"))
	s.changesNothing(t, id, c.links("/r/")[0], c.page, pay)
}

// changesNothing fetches addresses in every way but a person's.
func (s *rig) changesNothing(t *testing.T, id string, addresses ...string) {
	t.Helper()
	s.awaitIdle()
	before := s.everything(id)
	same := func(after string) {
		t.Helper()
		if got := s.everything(id); !slices.Equal(got, before) {
			t.Errorf("after %s:\n%s\nwant, as before:\n%s", after, strings.Join(got, "\n"), strings.Join(before, "\n"))
		}
	}
	client := &http.Client{Timeout: longestWait, Transport: &http.Transport{}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	defer client.CloseIdleConnections()
	for _, address := range addresses {
		for i := range 100 {
			method := []string{http.MethodGet, http.MethodHead}[i/len(crawlers)%2]
			header := http.Header{"User-Agent": {crawlers[i%len(crawlers)]}}
			if i >= 80 {
				header.Set("Sec-Purpose", "prefetch;prerender")
			}
			status, _, err := callBy(t.Context(), client, method, address, header, nil)
			if err != nil || status != http.StatusOK && status != http.StatusSeeOther {
				t.Fatalf("%s by %q answered %d, %v", method, crawlers[i%len(crawlers)], status, err)
			}
		}
	}
	same("the crawlers")
	for _, address := range addresses[:1] { // a browser follows it to the page
		lookOnWithBrowser(t, address)
	}
	same("the browser")
}

// everything is all that anyone could see change: the request, its log, and the
// calls that companies received.
func (s *rig) everything(id string) []string {
	s.t.Helper()
	status, body, err := s.call(http.MethodGet, s.front.url+"/v1/payment-requests/"+id, http.Header{"Authorization": {"Bearer " + demoAPIKey}}, nil)
	s.must(err)
	if status != http.StatusOK {
		s.t.Fatalf("the payment request answered %d", status)
	}
	all := append([]string{string(body)}, s.eventTypes(id)...)
	for _, c := range s.world.Faults.Calls() {
		all = append(all, c.Call+" "+c.Ref)
	}
	return all
}

// lookOnWithBrowser loads a page in a headless Chromium and touches nothing.
func lookOnWithBrowser(t *testing.T, address string) {
	t.Helper()
	binary := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			binary = path
			break
		}
	}
	if binary == "" {
		t.Fatal("this test needs a browser: apt-get install chromium")
	}
	dir := t.TempDir() // also for what it leaves behind in TMPDIR
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(dir), chromedp.Env("TMPDIR="+dir),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		// The address bar, which nobody looks at, would bring two pages of its own to each window.
		chromedp.Flag("disable-features", "Translate,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.WSURLReadTimeout(time.Minute))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	defer stop()
	browser, quit := chromedp.NewContext(allocator)
	defer quit()
	if err := chromedp.Do(browser, chromedp.Navigate(address)); err != nil {
		t.Fatalf("load the page: %v", err)
	}
	select {
	case <-time.After(lookOn):
	case <-t.Context().Done():
	}
	title, err := chromedp.Run(browser, chromedp.Evaluate[string]("document.title"))
	if err != nil || title == "" {
		t.Fatalf("the page has the title %q, %v", title, err)
	}
}
