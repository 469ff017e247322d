package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"paythread/simulator"
)

// TestStoriesInTheBrowser plays the main job by what people see: one browser
// is the agent in the sample order system, another the customer on the phone
// and on the pay page.
func TestStoriesInTheBrowser(t *testing.T) {
	t.Parallel()
	browser := startChromium(t)
	windows := make(chan struct{}, 2) // on a small machine more would only be slower
	for name, story := range map[string]struct {
		stage stageOptions
		tell  func(*drama)
	}{
		"whatsapp":             {tell: (*drama).paysByWhatsApp},
		"sms":                  {tell: (*drama).paysBySMS},
		"declined then paid":   {tell: (*drama).declinedThenPaid},
		"cancelled link":       {tell: (*drama).cancelledLink},
		"expired and extended": {tell: (*drama).expiredAndExtended, stage: stageOptions{TimeToOpen: 8 * time.Second}},
		"late payment":         {tell: (*drama).latePayment, stage: lateStage},
		"by keyboard alone":    {tell: (*drama).byKeyboardAlone},
		"wrong number":         {tell: (*drama).wrongNumber},
		"not on whatsapp":      {tell: (*drama).notOnWhatsApp, stage: stageOptions{Pace: time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			windows <- struct{}{}
			t.Cleanup(func() { <-windows })
			o := story.stage
			o.Redis = onRealRedis
			story.tell(&drama{t: t, browser: browser, stage: newStage(t, o)})
		})
	}
}

// lateStage is a platform that loses an answer and shows nothing in its search
// until it is told to.
var lateStage = stageOptions{
	TokenLife: 3 * time.Second, SearchDelay: time.Hour, TimeToPay: 12 * time.Second,
	Timings: "{send_within: 3s, recover_after: 3500ms, ask_after: [4s], late_ask_after: [13s, 14s, 15s, 16s, 17s, 18s, 20s, 22s, 24s, 26s, 28s, 32s, 36s, 40s, 50s, 1m], token_grace: 0s, echo_within: 3s}",
}

// drama is a story with two people in it.
type drama struct {
	t       *testing.T
	browser *chromium
	*stage
	agent    *person
	customer *person // at the phone
}

const (
	goodCard   = "4111 1111 1111 1111"
	emptyCard  = "4000 0000 0000 9995"
	phoneTyped = "082 123 4567"
)

// agentSends has the agent make an order, pick Chat to pay, correct the phone
// number, choose the channel and send.
func (d *drama) agentSends(channel string) {
	d.t.Helper()
	d.agent = d.browser.person(d.t, "agent", desk, d.outside.URL+"/oms/")
	d.agent.presses("New order")
	d.agent.types("Phone, international", "+27821230000")
	d.agent.presses("Create order")
	d.agent.seesStatus("Unpaid")
	d.agent.presses("Chat to pay")
	d.agent.sees("What the customer gets")
	d.agent.sees("Test payment")
	d.agent.types("Phone number", phoneTyped)
	d.agent.sees("Sends to +27 82 123 4567")
	d.agent.chooses(channel)
	d.agent.sees("pay ZAR 1,723.85 for order")
	d.agent.picture("oms-form-" + channel)
	d.agent.presses("Send request for")
	d.agent.seesStatus("Payment requested")
}

// customerTakesThePhone shows the customer the thread with the newest message.
func (d *drama) customerTakesThePhone(app string) {
	d.t.Helper()
	d.customer = d.browser.person(d.t, "customer", pocket, d.outside.URL+"/phone/"+strings.TrimPrefix(demoCustomer, "+"))
	d.customer.sees("for order")
	d.customer.presses(app + " ·")
}

// opens presses the newest link of the thread and looks at the pay page.
func (d *drama) opens(link string) *person {
	d.t.Helper()
	d.customer.presses(link)
	return d.customer.follows(d.public + "/pay/")
}

// entersCard fills in the card form, which is a frame of the platform's.
func (d *drama) entersCard(page *person, number string) {
	d.t.Helper()
	page.sees("Pay with your card")
	page.presses("Pay with card")
	form := page.frame(d.outside.URL + "/uc/v1/frames/")
	form.types("Card number", number)
	form.types("Expiry date", fmt.Sprintf("12%02d", (time.Now().Year()+2)%100))
	form.types("Security code", "123")
	form.types("Name on card", "Thandi Nkosi")
	form.types("E-mail", "thandi@example.test")
	form.types("Street address", "1 Long Street")
	form.types("City", "Cape Town")
	form.presses("Pay ZAR")
}

func (d *drama) paysByWhatsApp() {
	d.agentSends("WhatsApp")
	d.agent.sees("Message delivered")
	d.customerTakesThePhone("WhatsApp")
	d.agent.sees("Message read")
	d.customer.picture("phone-whatsapp")
	page := d.opens("Pay securely")
	page.sees("Acme Energy asks you to pay ZAR 1,723.85")
	page.picture("page-ask")
	page.presses("Continue to payment")
	d.agent.sees("Customer is at the checkout")
	d.agent.picture("oms-opened")
	d.entersCard(page, goodCard)
	page.sees("Payment received")
	page.picture("page-paid")
	d.agent.sees("R 1,723.85 received.")
	d.agent.seesStatus("Paid")
	d.agent.picture("oms-paid")
	page.presses("View receipt")
	page.sees("Receipt number")
	page.picture("receipt")
	d.customer.returns()
	d.customer.sees("View receipt")
	d.customer.picture("phone-whatsapp-receipt")
	d.agent.sees("The customer has read the receipt message.") // the last news: nothing moves under the hand any more
	d.agent.presses("All events")
	d.agent.sees("The customer has looked at the receipt.")
}

func (d *drama) paysBySMS() {
	d.agentSends("SMS")
	d.agent.sees("Message delivered")
	d.customerTakesThePhone("Messages")
	d.customer.picture("phone-sms")
	page := d.opens(d.public + "/p/")
	page.presses("Continue to payment")
	d.entersCard(page, goodCard)
	page.sees("Payment received")
	d.agent.sees("received.")
	d.agent.seesStatus("Paid")
	d.customer.returns()
	d.customer.presses(d.public + "/r/")
	receipt := d.customer.follows(d.public + "/receipts/")
	receipt.sees("Receipt number")
	receipt.presses("Save or print")
	d.agent.presses("All events")
	d.agent.sees("The customer has looked at the receipt.")
}

func (d *drama) declinedThenPaid() {
	d.agentSends("WhatsApp")
	d.customerTakesThePhone("WhatsApp")
	page := d.opens("Pay securely")
	page.presses("Continue to payment")
	d.entersCard(page, emptyCard)
	page.sees("The payment did not go through")
	page.picture("page-declined")
	d.agent.sees("Card declined")
	d.agent.sees("not enough money")
	d.agent.picture("oms-declined")
	page.presses("Try again")
	d.entersCard(page, goodCard)
	page.sees("Payment received")
	d.agent.sees("received.")
	d.agent.seesStatus("Paid")
}

func (d *drama) cancelledLink() {
	d.agentSends("WhatsApp")
	d.customerTakesThePhone("WhatsApp")
	d.agent.sees("Message read")
	d.agent.presses("Cancel request")
	d.agent.sees("The link stops working and the customer is told.")
	d.agent.picture("oms-cancel")
	d.agent.presses("Yes, cancel it")
	d.agent.sees("The customer has been told.")
	d.agent.seesStatus("Unpaid")
	d.customer.sees("was cancelled. There is nothing to pay.")
	page := d.opens("Pay securely")
	page.sees("This payment was cancelled")
	page.picture("page-cancelled")
}

func (d *drama) expiredAndExtended() {
	d.agentSends("SMS")
	d.customerTakesThePhone("Messages")
	d.agent.sees("The link was not opened in time.")
	d.agent.seesStatus("Unpaid")
	d.agent.picture("oms-expired")
	page := d.opens(d.public + "/p/")
	page.sees("It was not opened in time.")
	page.picture("page-expired")
	d.agent.presses("Give more time")
	d.agent.seesStatus("Payment requested")
	page = d.reopens(d.public + "/p/")
	page.presses("Continue to payment")
	d.entersCard(page, goodCard)
	page.sees("Payment received")
	d.agent.seesStatus("Paid")
}

// reopens goes back to the thread and opens its link once more.
func (d *drama) reopens(link string) *person {
	d.t.Helper()
	d.customer.returns()
	return d.opens(link)
}

func (d *drama) latePayment() {
	d.agentSends("WhatsApp")
	d.customerTakesThePhone("WhatsApp")
	page := d.opens("Pay securely")
	s := &tale{t: d.t, stage: d.stage, client: plainClient(d.t)}
	s.platformLosesAnswer(nil)
	page.presses("Continue to payment")
	d.entersCard(page, goodCard)
	page.sees("Checking with the bank")
	page.picture("page-checking")
	d.agent.sees("Waiting for the bank")
	d.agent.sees("The link was opened, and not paid in time.")
	page.sees("This payment request has ended")
	s.want(s.call(http.MethodPost, d.outside.URL+"/cybersource/advance", nil, map[string]bool{"index": true}), http.StatusOK)
	d.agent.sees("The money came after the request had ended.")
	d.agent.seesStatus("Paid")
	d.agent.picture("oms-late")
	d.customer.returns()
	d.customer.sees("View receipt")
}

// wrongNumber has the agent mistype the number and put it right.
func (d *drama) wrongNumber() {
	d.agent = d.browser.person(d.t, "agent", desk, d.outside.URL+"/oms/")
	d.agent.presses("New order")
	d.agent.presses("Create order")
	d.agent.presses("Chat to pay")
	d.agent.types("Phone number", "082 12")
	d.agent.presses("Send request for")
	d.agent.sees("There is no such phone number")
	d.agent.picture("oms-wrong-number")
	d.agent.types("Phone number", phoneTyped)
	d.agent.presses("Send request for")
	d.agent.seesStatus("Payment requested")
}

// notOnWhatsApp has the agent pick WhatsApp for a number that is not there: the
// agent watches SMS take over, and the customer pays from there.
func (d *drama) notOnWhatsApp() {
	s := newTale(d.t, d.stage)
	s.customerLeavesWhatsApp(nil)
	d.agentSends("WhatsApp")
	d.agent.sees("Sending by SMS instead")
	d.agent.sees("This number cannot be reached on WhatsApp")
	d.agent.picture("oms-falls-back")
	d.agent.sees("SMS: delivered")
	d.agent.sees("WhatsApp: not delivered")
	d.agent.sees("by SMS instead of WhatsApp")
	d.agent.seesStatus("Payment requested")
	d.agent.picture("oms-fell-back")
	d.customerTakesThePhone("Messages")
	page := d.opens(d.public + "/p/")
	page.presses("Continue to payment")
	d.entersCard(page, goodCard)
	page.sees("Payment received")
	d.agent.sees("R 1,723.85 received.")
	d.agent.seesStatus("Paid")
	d.customer.returns()
	d.customer.presses(d.public + "/r/")
	receipt := d.customer.follows(d.public + "/receipts/")
	receipt.sees("Receipt number")
	receipt.presses("Save or print")
	d.agent.presses("All events")
	d.agent.sees("the message goes by SMS, with the same link.")
	d.agent.sees("The customer has looked at the receipt.")
	d.agent.picture("oms-fell-back-paid")
	if got := s.outside.Phones.Messages(demoCustomer); slices.ContainsFunc(got, func(m simulator.Message) bool { return m.Channel == simulator.WhatsApp }) {
		d.t.Error("a number that is not on WhatsApp received a message there")
	}
}

// byKeyboardAlone tells the whole story without a pointer.
func (d *drama) byKeyboardAlone() {
	d.agent = d.browser.person(d.t, "agent", desk, d.outside.URL+"/oms/")
	d.agent.tabsTo("New order")
	d.agent.keys(kb.Enter)
	d.agent.sees("Lines, prices without tax")
	d.agent.tabsTo("Create order")
	d.agent.keys(kb.Enter)
	d.agent.seesStatus("Unpaid")
	d.agent.tabsTo("Chat to pay")
	d.agent.keys(kb.Enter)
	d.agent.sees("What the customer gets")
	d.agent.tabsTo("WhatsApp")
	d.agent.keys(kb.ArrowDown) // on to SMS, and back
	d.agent.tabsTo("SMS")
	d.agent.keys(kb.ArrowUp)
	d.agent.tabsTo("Send request for")
	d.agent.keys(kb.Enter)
	d.agent.sees("Message delivered")

	d.customer = d.browser.person(d.t, "customer", pocket, d.outside.URL+"/phone/"+strings.TrimPrefix(demoCustomer, "+"))
	d.customer.tabsTo("Acme Energy")
	d.customer.keys(kb.Enter)
	d.customer.sees("Please pay")
	d.customer.tabsTo("Pay securely")
	d.customer.keys(kb.Enter)
	page := d.customer.follows(d.public + "/pay/")
	page.sees("asks you to pay")
	page.tabsTo("Continue to payment")
	page.keys(" ")
	page.sees("Pay with your card")
	page.tabsTo("Pay with card")
	page.keys(kb.Enter)
	form := page.frame(d.outside.URL + "/uc/v1/frames/")
	form.tabsTo("Card number")
	form.keys("4111111111111111", kb.Tab, fmt.Sprintf("12%02d", (time.Now().Year()+2)%100), kb.Tab, "123", kb.Tab, "Thandi Nkosi", kb.Tab, "thandi@example.test")
	form.tabsTo("Street address")
	form.keys("1 Long Street", kb.Tab, "Cape Town")
	form.tabsTo("Pay ZAR")
	form.keys(kb.Enter)
	page.sees("Payment received")
	page.tabsTo("View receipt")
	page.keys(kb.Enter)
	page.sees("Receipt number")
	d.agent.sees("received.")
	d.agent.seesStatus("Paid")
}
