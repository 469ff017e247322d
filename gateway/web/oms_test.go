package web_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"paythread/simulator/oms"
)

// newShop serves the sample order system against the fake gateway.
func newShop(t *testing.T, g *fakeGateway) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	shop := httptest.NewServer(mux)
	t.Cleanup(shop.Close)
	system, err := oms.New(oms.Config{GatewayURL: g.URL, APIKey: apiKey, PublicURL: shop.URL})
	if err != nil {
		t.Fatal(err)
	}
	system.Register(mux)
	return shop
}

// newOrder creates the order that the form suggests and shows its page.
func (b *tab) newOrder(shop *httptest.Server) {
	b.t.Helper()
	b.run("create an order", chromedp.Navigate(shop.URL+"/oms/orders/new"), chromedp.Click(chromedp.CSS("form .button.main")), chromedp.WaitVisible(chromedp.CSS("#chat-to-pay")))
}

func TestOrderSystemEmbedsPanel(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t)
	shop := newShop(t, g)
	b := newTab(t, shop.URL+"/oms/", 1280, 800)
	b.await(`document.querySelectorAll('.list tbody tr').length >= 4`)
	b.newOrder(shop)
	b.run("pick Chat to pay", chromedp.Click(chromedp.CSS("#chat-to-pay")))
	b.await(`$('#preview .bubble') && /R\s?1[,\s]723\.85/.test($('[data-row=total]').textContent)`)
	if eval[bool](b, fmt.Sprintf("document.documentElement.outerHTML.includes(%q)", apiKey)) {
		t.Error("the page holds the API key")
	}
	b.click("#send")
	b.await(`$('#state').dataset.lifecycle === 'open' && document.getElementById('status').textContent === 'Payment requested'`)
	g.decline()

	// The session runs out in the middle; the page fetches another and nothing is lost.
	g.endTokens()
	g.pay()
	b.await(`$('#state').dataset.lifecycle === 'paid' && document.getElementById('status').textContent === 'Paid'`)
	b.await(`document.getElementById('page').dataset.confirmed === 'paid'`) // its own server has asked, too
	b.keys(kb.Escape)

	// Opened again, the page shows the same request.
	b.run("reload", chromedp.Reload())
	b.await(`document.getElementById('status').textContent === 'Paid' && !document.getElementById('show-chat').hidden`)
	b.run("open the chat", chromedp.Click(chromedp.CSS("#show-chat")))
	b.await(`$('#state').dataset.lifecycle === 'paid'`)
	if g.made() != 1 {
		t.Errorf("got %d payment requests, want 1", g.made())
	}
}

// TestScreenshots leaves pictures for people to judge; it runs only when asked.
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("run with -screenshots=FOLDER to take pictures")
	}
	for _, size := range []struct{ width, height int64 }{{390, 844}, {1280, 900}} {
		g := newFakeGateway(t)
		shop := newShop(t, g)
		b := newTab(t, shop.URL+"/oms/", size.width, size.height)
		take := func(name string) { b.picture(fmt.Sprintf("%s-%d", name, size.width)) }
		take("oms-list")
		b.run("new order", chromedp.Navigate(shop.URL+"/oms/orders/new"))
		take("oms-new")
		b.newOrder(shop)
		take("oms-order")
		b.run("pick Chat to pay", chromedp.Click(chromedp.CSS("#chat-to-pay")))
		b.await(`$('#preview .bubble')`)
		take("panel-form")
		b.run("scroll", chromedp.Evaluate[chromedp.Void](inPanel("#send")+".scrollIntoView();document.getElementById('drawer-body').scrollTo(0, 9999)"))
		take("panel-form-end")
		b.click("#send")
		b.await(`$('#state').dataset.lifecycle === 'open'`)
		g.milestone("sent", "The message was sent.", nil)
		g.milestone("delivered", "The message was delivered.", nil)
		b.await(`$('[data-step=delivered]').dataset.state === 'done'`)
		take("panel-open")
		b.click("#cancel")
		b.await(`!$('#confirm').hidden`)
		take("panel-confirm")
		b.click("#confirm-no")
		g.milestone("opened", "The customer opened the link.", object{"pay_by": time.Now().UTC().Add(15 * time.Minute)})
		g.decline()
		b.await(`$('#state').dataset.key === 'declined'`)
		b.run("scroll up", chromedp.Evaluate[chromedp.Void](`document.getElementById('drawer-body').scrollTo(0, 0)`))
		take("panel-declined")
		g.pay()
		g.milestone("receipt_sent", "The receipt was sent.", nil)
		b.await(`$('#state').dataset.lifecycle === 'paid' && $('[data-step=receipt_sent]').dataset.state === 'done' && document.getElementById('page').dataset.confirmed === 'paid'`)
		take("panel-paid")

		warned := newFakeGateway(t)
		warned.set(func() {
			warned.channels = []object{{"channel": "whatsapp", "available": true, "reason": "sender_unusable"}, {"channel": "sms", "available": true}}
			warned.sms["encoding"], warned.sms["units"], warned.sms["segments"], warned.sms["cost_units"] = "ucs2", 104, 2, 2
			warned.sms["outside_gsm7"] = []string{"ł", "ş", "U+202E"}
		})
		w := newTab(t, newShop(t, warned).URL+"/oms/", size.width, size.height)
		w.run("open an order", chromedp.Click(chromedp.CSS(".list tbody a")), chromedp.WaitVisible(chromedp.CSS("#chat-to-pay")), chromedp.Click(chromedp.CSS("#chat-to-pay")))
		w.await(`$('#preview').dataset.channel === 'sms'`)
		w.run("scroll to the choice", chromedp.Evaluate[chromedp.Void](inPanel("#channel")+".scrollIntoView()"))
		w.picture(fmt.Sprintf("panel-warned-%d", size.width))
		w.run("scroll to the cost", chromedp.Evaluate[chromedp.Void]("document.getElementById('drawer-body').scrollTo(0, 9999)"))
		w.picture(fmt.Sprintf("panel-cost-%d", size.width))

		failing := newFakeGateway(t)
		p := failing.openPanel(t, failing.token(failing.seal()), 390, 844)
		p.run("dark", chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
			return err
		}))
		p.await(`$('#preview .bubble')`)
		p.picture("panel-dark-form")
		p.click("#send")
		p.await(`heard.length === 1`)
		failing.failMessage()
		p.await(`$('#state').dataset.key === 'undelivered'`)
		p.picture("panel-dark-failed")
		failing.fallBack("payment")
		p.await(`$('#state').dataset.key === 'fell_back'`)
		p.picture("panel-dark-fell-back")
	}
}
