package oms

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// What the gateway may take, and how much of an answer is read.
const (
	gatewayTimeout = 10 * time.Second
	answerLimit    = 1 << 20
)

// client calls the gateway as this merchant's server. The API key stays here.
type client struct {
	http    *http.Client
	baseURL string
	apiKey  string
}

type amount struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

type handedLine struct {
	Name      string `json:"name"`
	SKU       string `json:"sku,omitempty"`
	Quantity  int64  `json:"quantity"`
	UnitPrice amount `json:"unit_price"`
	Total     amount `json:"total"`
}

type handedOrder struct {
	Order     string       `json:"order"`
	LineItems []handedLine `json:"line_items"`
	Subtotal  amount       `json:"subtotal"`
	Tax       amount       `json:"tax"`
	Shipping  *amount      `json:"shipping,omitempty"`
	Discount  *amount      `json:"discount,omitempty"`
	Total     amount       `json:"total"`
	Phone     string       `json:"phone"`
	Country   string       `json:"country"`
	Customer  string       `json:"customer_name"`
}

type agent struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type sessionRequest struct {
	Agent       agent        `json:"agent"`
	Order       *handedOrder `json:"order,omitempty"`
	SealedOrder string       `json:"sealed_order,omitempty"`
}

// session is what the page needs to show the panel.
type session struct {
	Token       string    `json:"token"`
	ExpiresAt   time.Time `json:"expires_at"`
	SealedOrder string    `json:"sealed_order"`
}

// refusal is an answer other than success.
type refusal struct {
	Status int
	Detail string
}

func (r *refusal) Error() string { return fmt.Sprintf("gateway answered %d: %s", r.Status, r.Detail) }

// handOver gives the order to the gateway and returns a session for it. When it
// was handed over before, the session is for the same sealed order; should the
// gateway not know it any more, it is handed over again.
func (c *client) handOver(ctx context.Context, o Order) (session, error) {
	ask := sessionRequest{Agent: agent{ID: "agent-1", Name: "Thandi"}}
	if o.sealed != "" {
		ask.SealedOrder = o.sealed
		s, err := c.session(ctx, ask)
		var refused *refusal
		if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			return s, err
		}
		ask.SealedOrder = ""
	}
	ask.Order = hand(o)
	return c.session(ctx, ask)
}

func (c *client) session(ctx context.Context, ask sessionRequest) (session, error) {
	var s session
	if err := c.call(ctx, http.MethodPost, "/v1/agent-sessions", ask, &s); err != nil {
		return session{}, fmt.Errorf("make an agent session: %w", err)
	}
	if s.Token == "" {
		return session{}, errors.New("make an agent session: the answer has no token")
	}
	return s, nil
}

// found is one payment request of an order.
type found struct {
	ID         string `json:"id"`
	Lifecycle  string `json:"lifecycle"`
	Superseded bool   `json:"superseded"`
	CreatedAt  string `json:"created_at"`
}

// requests returns the payment requests of an order.
func (c *client) requests(ctx context.Context, order string) ([]found, error) {
	var page struct {
		Items []found `json:"items"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1/payment-requests?order="+url.QueryEscape(order), nil, &page); err != nil {
		return nil, fmt.Errorf("ask about an order: %w", err)
	}
	return page.Items, nil
}

func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, gatewayTimeout)
	defer cancel()
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.baseURL+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.apiKey)
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // everything of use has been read
	raw, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil {
		return err
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		var problem struct{ Title, Detail string }
		_ = json.Unmarshal(raw, &problem) // the status stands without it
		if problem.Detail == "" {
			problem.Detail = problem.Title
		}
		return &refusal{Status: res.StatusCode, Detail: problem.Detail}
	}
	return json.Unmarshal(raw, out)
}

func hand(o Order) *handedOrder {
	money := func(minor int64) amount { return amount{Value: decimal(minor), Currency: o.Currency} }
	h := &handedOrder{
		Order: o.Number, Subtotal: money(o.Subtotal), Tax: money(o.Tax), Total: money(o.Total),
		Phone: o.Phone, Country: o.Country, Customer: o.Customer,
	}
	for _, l := range o.Lines {
		h.LineItems = append(h.LineItems, handedLine{Name: l.Name, SKU: l.SKU, Quantity: l.Quantity, UnitPrice: money(l.UnitPrice), Total: money(l.Total())})
	}
	if o.Shipping != 0 {
		h.Shipping = new(money(o.Shipping))
	}
	if o.Discount != 0 {
		h.Discount = new(money(o.Discount))
	}
	return h
}

// decimal writes minor units with two decimals, as the currencies of this
// sample have.
func decimal(minor int64) string {
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	return fmt.Sprintf("%s%d.%02d", sign, minor/100, minor%100)
}
