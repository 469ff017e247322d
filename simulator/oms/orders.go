package oms

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Status is where an order stands in this system's own words.
type Status string

// The statuses of an order.
const (
	Unpaid     Status = "unpaid"
	Asked      Status = "asked"      // the customer has been sent a request
	Processing Status = "processing" // the payment is being made or reviewed
	Authorized Status = "authorized" // the money is held
	Paid       Status = "paid"
	Refunded   Status = "refunded"
)

// fromLifecycle is what a payment request's lifecycle means for the order. An
// ended request leaves the order unpaid: another may follow.
var fromLifecycle = map[string]Status{
	"open":               Asked,
	"processing":         Processing,
	"in_review":          Processing,
	"authorized":         Authorized,
	"paid":               Paid,
	"partially_refunded": Paid,
	"refunded":           Refunded,
	"reversed":           Refunded,
	"expired":            Unpaid,
	"cancelled":          Unpaid,
	"failed":             Unpaid,
}

// Line is one line of an order. Prices are in minor units, without tax.
type Line struct {
	Name      string `json:"name"`
	SKU       string `json:"sku,omitempty"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"`
}

// Total returns the line's price without tax.
func (l Line) Total() int64 { return l.Quantity * l.UnitPrice }

// Order is one order. Amounts are in minor units of Currency.
type Order struct {
	Number   string    `json:"number"`
	Customer string    `json:"customer"`
	Phone    string    `json:"phone"` // E.164
	Country  string    `json:"country"`
	Currency string    `json:"currency"`
	Lines    []Line    `json:"lines"`
	Subtotal int64     `json:"subtotal"`
	TaxRate  int64     `json:"tax_rate"` // in hundredths of a percent: 1500 is 15 %
	Tax      int64     `json:"tax"`
	Shipping int64     `json:"shipping"`
	Discount int64     `json:"discount"`
	Total    int64     `json:"total"`
	Created  time.Time `json:"created"`

	Status   Status `json:"status"`
	Method   string `json:"method,omitempty"`  // card_terminal, eft or chat
	Request  string `json:"request,omitempty"` // the payment request that was asked about last
	sealed   string // the gateway's id of the order as handed over
	askedAt  time.Time
	asking   bool
	override bool // recorded by hand: the gateway has no say
}

// Draft is what an agent types for a new order. What is left out gets a
// default, so that an empty draft makes an order too.
type Draft struct {
	Customer string `json:"customer"`
	Phone    string `json:"phone"`
	Country  string `json:"country"`
	Lines    []Line `json:"lines"`
	TaxRate  *int64 `json:"tax_rate"` // in hundredths of a percent
	Shipping int64  `json:"shipping"`
	Discount int64  `json:"discount"`
}

const (
	maxOrders = 2000 // it is a sample: the oldest give way
	maxLines  = 20
	maxText   = 120
	maxAmount = 100_000_000_00 // in minor units; keeps every sum far inside an int64
)

var errNoOrder = errors.New("there is no such order")

// price completes a draft and counts it up. The error is a sentence for the
// agent.
func price(d Draft) (Order, error) {
	o := Order{
		Customer: strings.TrimSpace(d.Customer), Phone: spaceless(d.Phone), Country: strings.ToUpper(strings.TrimSpace(d.Country)),
		Currency: "ZAR", TaxRate: 1500, Shipping: d.Shipping, Discount: d.Discount, Lines: slices.Clone(d.Lines), Status: Unpaid,
	}
	if o.Customer == "" {
		o.Customer = "Lerato Mokoena"
	}
	if o.Country == "" {
		o.Country = "ZA"
	}
	if o.Phone == "" {
		o.Phone = "+27821234567"
	}
	if len(o.Lines) == 0 {
		o.Lines = []Line{{Name: "Geyser element 3 kW", SKU: "GE-3000", Quantity: 1, UnitPrice: 84900}, {Name: "Call-out, first hour", SKU: "CO-1", Quantity: 1, UnitPrice: 65000}}
	}
	if d.TaxRate != nil {
		o.TaxRate = *d.TaxRate
	}
	switch {
	case utf8.RuneCountInString(o.Customer) > maxText:
		return Order{}, fmt.Errorf("the customer's name is longer than %d characters", maxText)
	case len(o.Country) != 2:
		return Order{}, errors.New("the country must be a two-letter code")
	case len(o.Phone) < 8 || len(o.Phone) > 16 || o.Phone[0] != '+' || strings.Trim(o.Phone[1:], "0123456789") != "":
		return Order{}, errors.New("the phone number must be in international form, + and 7 to 15 digits")
	case len(o.Lines) > maxLines:
		return Order{}, fmt.Errorf("an order has at most %d lines", maxLines)
	case o.TaxRate < 0 || o.TaxRate > 10000:
		return Order{}, errors.New("the tax rate must be between 0 and 100 %")
	case o.Shipping < 0 || o.Shipping > maxAmount || o.Discount < 0 || o.Discount > maxAmount:
		return Order{}, errors.New("shipping and discount must not be negative or that large")
	}
	for i, l := range o.Lines {
		if strings.TrimSpace(l.Name) == "" || utf8.RuneCountInString(l.Name) > maxText {
			return Order{}, fmt.Errorf("line %d needs a name of at most %d characters", i+1, maxText)
		}
		if l.Quantity < 1 || l.Quantity > 10_000 || l.UnitPrice < 0 || l.UnitPrice > maxAmount {
			return Order{}, fmt.Errorf("line %d has an impossible quantity or price", i+1)
		}
		o.Subtotal += l.Total()
	}
	taxed := o.Subtotal + o.Shipping - o.Discount
	if taxed < 0 {
		return Order{}, errors.New("the discount is larger than the order")
	}
	o.Tax = (taxed*o.TaxRate + 5000) / 10000
	o.Total = taxed + o.Tax
	if o.Total == 0 {
		return Order{}, errors.New("there is nothing to pay")
	}
	return o, nil
}

// spaceless drops the spaces, dashes and brackets that people put into numbers.
func spaceless(phone string) string {
	return strings.NewReplacer(" ", "", "-", "", "(", "", ")", "").Replace(phone)
}

// book holds the orders, newest last. It is safe for concurrent use and hands
// out copies only.
type book struct {
	now    func() time.Time
	prefix string

	mu     sync.Mutex
	next   int
	orders []*Order
}

// newBook numbers its orders from the moment of its start, so that two runs
// against one gateway do not claim the same numbers.
func newBook(now func() time.Time) *book {
	started := strings.ToUpper(strconv.FormatInt(now().Unix(), 36))
	return &book{now: now, prefix: started[max(0, len(started)-5):], next: 1001}
}

func (b *book) add(o Order) Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	o.Number, o.Created = fmt.Sprintf("%s-%d", b.prefix, b.next), b.now()
	b.next++
	b.orders = append(b.orders, &o)
	if len(b.orders) > maxOrders {
		b.orders = slices.Delete(b.orders, 0, len(b.orders)-maxOrders)
	}
	return o.copy()
}

// list returns all orders, newest first.
func (b *book) list() []Order {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Order, 0, len(b.orders))
	for _, o := range slices.Backward(b.orders) {
		all = append(all, o.copy())
	}
	return all
}

func (b *book) get(number string) (Order, error) {
	return b.change(number, func(*Order) {})
}

// change lets f work on one order and returns the result.
func (b *book) change(number string, f func(*Order)) (Order, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.orders, func(o *Order) bool { return o.Number == number })
	if i < 0 {
		return Order{}, errNoOrder
	}
	f(b.orders[i])
	return b.orders[i].copy(), nil
}

func (o *Order) copy() Order {
	c := *o
	c.Lines = slices.Clone(o.Lines)
	return c
}

// samples fill an empty system, so that the list looks like a working day.
var samples = []Draft{
	{Customer: "Pieter van Wyk", Phone: "+27834567890", Lines: []Line{{Name: "Solar geyser service", SKU: "SG-SV", Quantity: 1, UnitPrice: 129565}}},
	{Customer: "Aisha Patel", Phone: "+27721112233", Shipping: 9900, Lines: []Line{{Name: "LED flood light 50 W", SKU: "LED-50", Quantity: 4, UnitPrice: 32900}, {Name: "Junction box IP66", SKU: "JB-66", Quantity: 4, UnitPrice: 8950}}},
	{Customer: "Sipho Dlamini", Phone: "+27615550123", Discount: 15000, Lines: []Line{{Name: "Inverter 5 kVA, deposit", SKU: "INV-5D", Quantity: 1, UnitPrice: 450000}}},
	{},
}
