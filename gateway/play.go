package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"paythread/conversations"
)

// playWithin bounds the whole story.
const playWithin = 90 * time.Second

// play tells the whole story by itself, over HTTP alone as the people in it
// would: the agent in the sample order system, the customer on the phone and
// the pay page. It prints each status as the agent's stream brings it, and
// returns when the receipt is viewed.
func play(ctx context.Context, out io.Writer, d *demo) error {
	ctx, cancel := context.WithTimeout(ctx, playWithin)
	defer cancel()
	s := &story{out: out, gateway: d.public, outside: d.outside.URL, began: time.Now(), client: &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if err := s.tell(ctx); err != nil {
		return fmt.Errorf("the play did not end well: %w", err)
	}
	return nil
}

// story is one telling.
type story struct {
	out     io.Writer
	gateway string
	outside string
	client  *http.Client
	began   time.Time
	token   string     // of the agent's session
	failed  chan error // what went wrong for the customer

	acting   sync.WaitGroup // the customer's calls under way
	speaking sync.Mutex
}

func (s *story) say(who, what string) {
	s.speaking.Lock()
	defer s.speaking.Unlock()
	// A terminal that is gone ends the process by its own signal.
	_, _ = fmt.Fprintf(s.out, "%6.2fs  %-9s %s\n", time.Since(s.began).Seconds(), who, what)
}

func (s *story) tell(ctx context.Context) error {
	order, err := s.makeOrder(ctx)
	if err != nil {
		return fmt.Errorf("the agent makes an order: %w", err)
	}
	request, err := s.ask(ctx, order)
	if err != nil {
		return fmt.Errorf("the agent asks for the payment: %w", err)
	}
	err = s.watch(ctx, request)
	s.acting.Wait()
	return err
}

// playOrder is what the story needs to know of the sample order.
type playOrder struct {
	Number   string `json:"number"`
	Phone    string `json:"phone"`
	Currency string `json:"currency"`
	Total    int64  `json:"total"`
}

// makeOrder makes an order in the sample system, whose server opens the agent's
// session.
func (s *story) makeOrder(ctx context.Context) (playOrder, error) {
	var order playOrder
	draft := map[string]string{"customer": "Thandi Nkosi", "phone": demoCustomer, "country": "ZA"}
	if err := s.post(ctx, s.outside+"/oms/api/orders", nil, draft, &order); err != nil {
		return order, err
	}
	var session struct {
		Token string `json:"token"`
	}
	if err := s.post(ctx, s.outside+"/oms/api/orders/"+url.PathEscape(order.Number)+"/session", nil, struct{}{}, &session); err != nil {
		return order, err
	}
	s.token = session.Token
	total := conversations.Money{Minor: order.Total, Currency: order.Currency}
	s.say("agent", fmt.Sprintf("opens order %s over %s and picks Chat to pay", order.Number, total))
	return order, nil
}

// ask presses Send in the panel.
func (s *story) ask(ctx context.Context, order playOrder) (string, error) {
	var made struct {
		ID string `json:"id"`
	}
	header := http.Header{"Authorization": {"Bearer " + s.token}, "Idempotency-Key": {"play-" + order.Number}}
	body := map[string]string{"phone": order.Phone, "channel": "whatsapp"}
	err := s.post(ctx, s.gateway+"/v1/payment-requests", header, body, &made)
	if err == nil {
		s.say("agent", "sends the payment request by WhatsApp")
	}
	return made.ID, err
}

// watch follows the agent's stream to the end of the story.
func (s *story) watch(ctx context.Context, id string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.gateway+"/v1/payment-requests/"+id+"/events", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Accept", "text/event-stream")
	stream := &http.Client{} // it stays open; ctx bounds it
	resp, err := stream.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return statusError(resp)
	}
	s.failed = make(chan error, 1)
	lines := make(chan string)
	go readLines(ctx, resp.Body, lines)
	for {
		select {
		case err := <-s.failed:
			return err
		case line, open := <-lines:
			if !open {
				return errors.New("the agent's stream ended before the receipt was viewed")
			}
			data, isData := strings.CutPrefix(line, "data: ")
			if !isData {
				continue
			}
			done, err := s.happened(ctx, data)
			if done || err != nil {
				return err
			}
		}
	}
}

func readLines(ctx context.Context, from io.Reader, lines chan<- string) {
	defer close(lines)
	scan := bufio.NewScanner(from)
	for scan.Scan() {
		select {
		case lines <- scan.Text():
		case <-ctx.Done():
			return
		}
	}
}

// happened prints an event and lets the customer do what comes next.
func (s *story) happened(ctx context.Context, data string) (done bool, err error) {
	var e struct {
		Type      string `json:"type"`
		Lifecycle string `json:"lifecycle"`
		Text      string `json:"text"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return false, err
	}
	s.say("status", fmt.Sprintf("%-18s %s", e.Type, e.Text))
	switch e.Type {
	case "delivered":
		s.act(ctx, s.pay)
	case "receipt_delivered":
		s.act(ctx, s.viewReceipt)
	case "receipt_viewed":
		s.say("play", "the story is told: paid, and the receipt was viewed")
		return true, nil
	case "declined", "failed", "cancelled", "expired", "message_failed":
		return false, fmt.Errorf("unexpected status %s: %s", e.Type, e.Text)
	}
	return false, nil
}

// act does something of the customer's while the stream is read on.
func (s *story) act(ctx context.Context, do func(context.Context) error) {
	s.acting.Add(1)
	go func() {
		defer s.acting.Done()
		if err := do(ctx); err != nil {
			select {
			case s.failed <- err:
			default: // the first failure tells enough
			}
		}
	}()
}

var nonceInPage = regexp.MustCompile(`data-nonce="([^"]+)"`)

// openLink follows the newest link on the customer's phone to its page.
func (s *story) openLink(ctx context.Context, kind string) (page, nonce string, err error) {
	phone := s.outside + "/phones/" + strings.TrimPrefix(demoCustomer, "+")
	if err := s.post(ctx, phone+"/read", nil, struct{}{}, nil); err != nil {
		return "", "", err
	}
	var thread struct {
		Messages []struct {
			Links []string `json:"links"`
		} `json:"messages"`
	}
	if err := s.get(ctx, phone+"/messages", &thread); err != nil {
		return "", "", err
	}
	link := ""
	for _, m := range thread.Messages {
		for _, l := range m.Links {
			if strings.Contains(l, kind) {
				link = l
			}
		}
	}
	if link == "" {
		return "", "", fmt.Errorf("no message on the phone has a link with %s", kind)
	}
	resp, err := s.do(ctx, http.MethodGet, link, nil, nil)
	if err != nil {
		return "", "", err
	}
	_ = resp.Body.Close() // a redirect's body is empty
	page = resp.Header.Get("Location")
	if resp, err = s.do(ctx, http.MethodGet, page, nil, nil); err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", "", err
	}
	found := nonceInPage.FindSubmatch(body)
	if resp.StatusCode != http.StatusOK || found == nil {
		return "", "", fmt.Errorf("the page behind the link answers %d", resp.StatusCode)
	}
	return page, string(found[1]), nil
}

// pay opens the link, presses the button, enters a card and pays.
func (s *story) pay(ctx context.Context) error {
	page, nonce, err := s.openLink(ctx, "/p/")
	if err != nil {
		return err
	}
	s.say("customer", "opens the link and presses Continue")
	header := s.pressed(nonce)
	var opened struct {
		Context string `json:"context"`
	}
	if err := s.post(ctx, page+"/open", header, struct{}{}, &opened); err != nil {
		return err
	}
	var card struct {
		TransientToken string `json:"transientToken"`
	}
	entry := map[string]any{"captureContext": opened.Context, "card": map[string]string{
		"number": "4111111111111111", "expirationMonth": "12", "expirationYear": fmt.Sprint(time.Now().Year() + 2), "securityCode": "123",
	}}
	if err := s.post(ctx, s.outside+"/cybersource/transient-tokens", nil, entry, &card); err != nil {
		return err
	}
	s.say("customer", "enters a test card and pays")
	return s.post(ctx, page+"/charge", header, map[string]string{"transient_token": card.TransientToken}, nil)
}

// viewReceipt opens the receipt's link and touches the page.
func (s *story) viewReceipt(ctx context.Context) error {
	page, nonce, err := s.openLink(ctx, "/r/")
	if err != nil {
		return err
	}
	s.say("customer", "opens the receipt")
	return s.post(ctx, page+"/viewed", s.pressed(nonce), struct{}{}, nil)
}

// pressed returns the headers of a call that our own page makes.
func (s *story) pressed(nonce string) http.Header {
	return http.Header{"Origin": {s.gateway}, "X-Paythread-Nonce": {nonce}}
}

func (s *story) post(ctx context.Context, to string, header http.Header, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if header == nil {
		header = http.Header{}
	}
	header = header.Clone()
	header.Set("Content-Type", "application/json")
	resp, err := s.do(ctx, http.MethodPost, to, header, bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return statusError(resp)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *story) get(ctx context.Context, from string, into any) error {
	resp, err := s.do(ctx, http.MethodGet, from, nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return statusError(resp)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

func (s *story) do(ctx context.Context, method, to string, header http.Header, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	return s.client.Do(req)
}

// statusError tells an answer that was not expected, without its address,
// which may hold a token.
func statusError(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 400))
	if err != nil {
		return fmt.Errorf("answered %d", resp.StatusCode)
	}
	return fmt.Errorf("answered %d: %s", resp.StatusCode, strings.TrimSpace(string(text)))
}
