package oms

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed web
var web embed.FS

const (
	bodyLimit   = 64 << 10
	askInterval = time.Second // the gateway is asked about an order no more often than this
)

// Config is what a sample shop needs to know.
type Config struct {
	GatewayURL string // where browser and server reach Paythread, e.g. http://127.0.0.1:8080
	APIKey     string // this merchant's key; stays on the server
	PublicURL  string // where browsers reach this server, e.g. http://localhost:8090
	Name       string // the shop's name on its pages; "Acme Energy" when empty
	Log        *slog.Logger
	Now        func() time.Time
}

// OMS is one sample order-management system. It is safe for concurrent use.
type OMS struct {
	config  Config
	gateway *client
	book    *book
	pages   *template.Template
	policy  string
}

// New checks its configuration and returns a system with a few orders in it.
func New(config Config) (*OMS, error) {
	gateway, err := origin(config.GatewayURL)
	if err != nil {
		return nil, fmt.Errorf("oms: GatewayURL: %w", err)
	}
	if _, err := origin(config.PublicURL); err != nil {
		return nil, fmt.Errorf("oms: PublicURL: %w", err)
	}
	if config.APIKey == "" {
		return nil, errors.New("oms: APIKey is missing")
	}
	if config.Name == "" {
		config.Name = "Acme Energy"
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	pages, err := template.New("").Funcs(template.FuncMap{
		"money": money, "word": word, "percent": percent, "day": func(t time.Time) string { return t.Local().Format("2 Jan, 15:04") },
	}).ParseFS(web, "web/*.html")
	if err != nil {
		return nil, fmt.Errorf("oms: parse pages: %w", err)
	}
	o := &OMS{
		config:  config,
		gateway: &client{http: &http.Client{}, baseURL: gateway, apiKey: config.APIKey},
		book:    newBook(config.Now),
		pages:   pages,
		policy: "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; " +
			"script-src 'self' " + gateway + "; connect-src 'self' " + gateway,
	}
	for i, sample := range samples {
		order, err := price(sample)
		if err != nil {
			return nil, fmt.Errorf("oms: sample %d: %w", i, err)
		}
		order = o.book.add(order)
		if i == 0 {
			o.record(order.Number, "card_terminal")
		}
	}
	return o, nil
}

// origin returns an address's scheme and host, or says what is wrong with it.
func origin(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%q is not an http or https address", address)
	}
	return u.Scheme + "://" + u.Host, nil
}

// Register adds the system's routes, all of them below /oms, to mux. Calls that
// change something are taken from its own pages and from programs, not from
// other sites in a browser.
func (o *OMS) Register(mux *http.ServeMux) {
	guard := http.NewCrossOriginProtection()
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.Handle(pattern, guard.Handler(o.handler(h)))
	}
	assets, err := fs.Sub(web, "web/assets")
	if err != nil {
		panic(err) // the compiler put it there
	}
	files := http.StripPrefix("/oms/assets/", http.FileServerFS(assets))
	mux.Handle("GET /oms/assets/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-cache")
		files.ServeHTTP(w, r)
	}))
	mux.Handle("GET /oms", http.RedirectHandler("/oms/", http.StatusSeeOther))
	handle("GET /oms/{$}", o.showOrders)
	handle("GET /oms/orders/new", o.showNewOrder)
	handle("POST /oms/orders", o.createOrder)
	handle("GET /oms/orders/{no}", o.showOrder)
	handle("POST /oms/orders/{no}/record", o.recordPayment)
	handle("GET /oms/api/orders", o.listOrders)
	handle("POST /oms/api/orders", o.apiCreateOrder)
	handle("GET /oms/api/orders/{no}", o.apiOrder)
	handle("POST /oms/api/orders/{no}/session", o.apiSession)
}

// answer is an error with the status and sentence that the caller gets.
type answer struct {
	status   int
	sentence string
}

func (a *answer) Error() string { return a.sentence }

func (o *OMS) handler(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", o.policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "same-origin")
		header.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(w, r.Body, bodyLimit)
		err := h(w, r)
		if err == nil {
			return
		}
		a := &answer{status: http.StatusInternalServerError, sentence: "Something went wrong in the order system."}
		if errors.Is(err, errNoOrder) {
			a = &answer{status: http.StatusNotFound, sentence: "There is no such order."}
		} else if !errors.As(err, &a) {
			o.config.Log.Error("sample oms: request failed", "method", r.Method, "pattern", r.Pattern, "error", err)
		}
		if strings.HasPrefix(r.URL.Path, "/oms/api/") {
			writeJSON(w, a.status, map[string]string{"error": a.sentence})
			return
		}
		if err := o.render(w, a.status, "sorry.html", page{Name: o.config.Name, Title: "Sorry", Problem: a.sentence}); err != nil {
			o.config.Log.Error("sample oms: page failed", "error", err)
		}
	})
}

// page is what the templates see.
type page struct {
	Name       string
	Title      string
	Problem    string
	GatewayURL string
	Orders     []Order
	Order      Order
	Draft      form
	Unpaid     int
}

func (o *OMS) render(w http.ResponseWriter, status int, name string, p page) error {
	p.Name, p.GatewayURL = o.config.Name, o.gateway.baseURL
	var b bytes.Buffer
	if err := o.pages.ExecuteTemplate(&b, name, p); err != nil {
		return fmt.Errorf("render %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the browser left
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the browser left
}

func (o *OMS) showOrders(w http.ResponseWriter, r *http.Request) error {
	p := page{Title: "Orders", Orders: o.book.list()}
	for i, order := range p.Orders {
		if order.Status == Asked || order.Status == Processing {
			p.Orders[i] = o.ask(r.Context(), order)
		}
		if p.Orders[i].Status != Paid {
			p.Unpaid++
		}
	}
	return o.render(w, http.StatusOK, "orders.html", p)
}

func (o *OMS) showNewOrder(w http.ResponseWriter, _ *http.Request) error {
	return o.render(w, http.StatusOK, "new.html", page{Title: "New order", Draft: defaultForm})
}

func (o *OMS) showOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := o.book.get(r.PathValue("no"))
	if err != nil {
		return err
	}
	order = o.ask(r.Context(), order)
	return o.render(w, http.StatusOK, "order.html", page{Title: "Order " + order.Number, Order: order})
}

func (o *OMS) createOrder(w http.ResponseWriter, r *http.Request) error {
	if err := r.ParseForm(); err != nil {
		return &answer{http.StatusBadRequest, "The form could not be read."}
	}
	f := readForm(r.PostForm)
	draft, err := f.draft()
	var order Order
	if err == nil {
		order, err = price(draft)
	}
	if err != nil {
		return o.render(w, http.StatusUnprocessableEntity, "new.html", page{Title: "New order", Draft: f, Problem: sentence(err)})
	}
	order = o.book.add(order)
	http.Redirect(w, r, "/oms/orders/"+url.PathEscape(order.Number), http.StatusSeeOther)
	return nil
}

func (o *OMS) recordPayment(w http.ResponseWriter, r *http.Request) error {
	method := r.FormValue("method")
	if method != "card_terminal" && method != "eft" {
		return &answer{http.StatusUnprocessableEntity, "Pick how the customer paid."}
	}
	number := r.PathValue("no")
	if _, err := o.book.get(number); err != nil {
		return err
	}
	o.record(number, method)
	http.Redirect(w, r, "/oms/orders/"+url.PathEscape(number), http.StatusSeeOther)
	return nil
}

// record marks an order as paid outside Paythread.
func (o *OMS) record(number, method string) {
	_, _ = o.book.change(number, func(order *Order) { // an order that gave way needs no mark
		if order.Status != Paid {
			order.Status, order.Method, order.override = Paid, method, true
		}
	})
}

func (o *OMS) listOrders(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]any{"items": o.book.list()})
	return nil
}

func (o *OMS) apiCreateOrder(w http.ResponseWriter, r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &answer{http.StatusUnsupportedMediaType, "Send application/json."}
	}
	var draft Draft
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&draft); err != nil {
		return &answer{http.StatusBadRequest, "The order could not be read: " + err.Error() + "."}
	}
	order, err := price(draft)
	if err != nil {
		return &answer{http.StatusUnprocessableEntity, sentence(err)}
	}
	writeJSON(w, http.StatusCreated, o.book.add(order))
	return nil
}

func (o *OMS) apiOrder(w http.ResponseWriter, r *http.Request) error {
	order, err := o.book.get(r.PathValue("no"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, o.ask(r.Context(), order))
	return nil
}

// apiSession makes an agent session for the page, or the next one when the last
// one ends.
func (o *OMS) apiSession(w http.ResponseWriter, r *http.Request) error {
	order, err := o.book.get(r.PathValue("no"))
	if err != nil {
		return err
	}
	s, err := o.gateway.handOver(r.Context(), order)
	if err != nil {
		o.config.Log.Warn("sample oms: no agent session", "order", order.Number, "error", err)
		var refused *refusal
		if errors.As(err, &refused) && refused.Detail != "" {
			return &answer{http.StatusBadGateway, "Paythread refused the order: " + refused.Detail}
		}
		return &answer{http.StatusBadGateway, "Paythread cannot be reached. Try again in a moment."}
	}
	if _, err := o.book.change(order.Number, func(order *Order) { order.sealed = s.SealedOrder }); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		session
		Gateway string `json:"gateway"`
	}{s, o.gateway.baseURL})
	return nil
}

// ask brings an order up to date with what the gateway knows. It asks only
// about orders that were handed over, and not twice within a moment; what it
// cannot learn it leaves as it was.
func (o *OMS) ask(ctx context.Context, order Order) Order {
	due := false
	order, err := o.book.change(order.Number, func(order *Order) {
		due = order.sealed != "" && !order.override && !order.asking && o.config.Now().Sub(order.askedAt) >= askInterval
		order.asking = order.asking || due
	})
	if err != nil || !due {
		return order
	}
	items, askErr := o.gateway.requests(ctx, order.Number)
	fresh, err := o.book.change(order.Number, func(order *Order) {
		order.asking, order.askedAt = false, o.config.Now()
		if askErr != nil || order.override || len(items) == 0 {
			return
		}
		best := holder(items)
		order.Request = best.ID
		if status, known := fromLifecycle[best.Lifecycle]; known {
			order.Status = status
		}
		order.Method = ""
		if order.Status != Unpaid {
			order.Method = "chat"
		}
	})
	if askErr != nil {
		o.config.Log.Warn("sample oms: gateway not asked", "order", order.Number, "error", askErr)
	}
	if err != nil {
		return order
	}
	return fresh
}

// holder picks the request that counts: one that was paid, or else the newest
// that no other has replaced.
func holder(items []found) found {
	rank := func(f found) int {
		switch status := fromLifecycle[f.Lifecycle]; {
		case status == Paid || status == Authorized:
			return 2
		case !f.Superseded:
			return 1
		}
		return 0
	}
	return slices.MaxFunc(items, func(a, b found) int {
		if ra, rb := rank(a), rank(b); ra != rb {
			return ra - rb
		}
		return strings.Compare(a.CreatedAt, b.CreatedAt)
	})
}

// form is the new-order page as typed: it is shown again as it was when
// something in it is wrong.
type form struct {
	Customer, Phone, Country, TaxRate, Shipping, Discount string
	Lines                                                 []formLine
}

type formLine struct{ Name, SKU, Quantity, Price string }

var defaultForm = form{
	Customer: "Lerato Mokoena", Phone: "+27 82 123 4567", Country: "ZA", TaxRate: "15", Shipping: "0.00", Discount: "0.00",
	Lines: []formLine{{"Geyser element 3 kW", "GE-3000", "1", "849.00"}, {"Call-out, first hour", "CO-1", "1", "650.00"}, {}},
}

func readForm(values url.Values) form {
	f := form{
		Customer: values.Get("customer"), Phone: values.Get("phone"), Country: values.Get("country"),
		TaxRate: values.Get("tax_rate"), Shipping: values.Get("shipping"), Discount: values.Get("discount"),
	}
	at := func(name string, i int) string {
		if i < len(values[name]) {
			return values[name][i]
		}
		return ""
	}
	for i := range min(len(values["line_name"]), maxLines) {
		f.Lines = append(f.Lines, formLine{at("line_name", i), at("line_sku", i), at("line_quantity", i), at("line_price", i)})
	}
	return f
}

func (f form) draft() (Draft, error) {
	d := Draft{Customer: f.Customer, Phone: f.Phone, Country: f.Country}
	var err error
	if d.Shipping, err = minor("shipping", f.Shipping); err != nil {
		return Draft{}, err
	}
	if d.Discount, err = minor("the discount", f.Discount); err != nil {
		return Draft{}, err
	}
	rate, err := minor("the tax rate", f.TaxRate)
	if err != nil {
		return Draft{}, err
	}
	d.TaxRate = &rate
	for i, l := range f.Lines {
		if strings.TrimSpace(l.Name) == "" {
			continue
		}
		what := "the price of line " + strconv.Itoa(i+1)
		line := Line{Name: strings.TrimSpace(l.Name), SKU: strings.TrimSpace(l.SKU), Quantity: 1}
		if line.UnitPrice, err = minor(what, l.Price); err != nil {
			return Draft{}, err
		}
		if q := strings.TrimSpace(l.Quantity); q != "" {
			if line.Quantity, err = strconv.ParseInt(q, 10, 32); err != nil {
				return Draft{}, fmt.Errorf("the quantity of line %d must be a whole number", i+1)
			}
		}
		d.Lines = append(d.Lines, line)
	}
	return d, nil
}

// minor reads a decimal with at most two places into hundredths.
func minor(what, text string) (int64, error) {
	text = strings.ReplaceAll(strings.TrimSpace(text), " ", "")
	if text == "" {
		return 0, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	if len(fraction) > 2 || whole == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return 0, fmt.Errorf("%s must be a number with at most two decimals", what)
	}
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", 2-len(fraction)), 10, 64)
	if err != nil || n > maxAmount {
		return 0, fmt.Errorf("%s is too large", what)
	}
	return n, nil
}

func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

func money(n int64) string {
	whole, cents, _ := strings.Cut(decimal(n), ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "\u00a0" + whole[i:]
	}
	return "R\u00a0" + whole + "." + cents
}

func percent(rate int64) string {
	return strings.TrimSuffix(strings.TrimRight(decimal(rate), "0"), ".") + "\u00a0%"
}

// words are the statuses and methods as agents read them.
var words = map[string]string{
	string(Unpaid): "Unpaid", string(Asked): "Payment requested", string(Processing): "Payment in progress",
	string(Authorized): "Authorised", string(Paid): "Paid", string(Refunded): "Refunded",
	"card_terminal": "Card terminal", "eft": "EFT", "chat": "Chat to pay", "": "",
}

func word(key any) string { return words[fmt.Sprint(key)] }
