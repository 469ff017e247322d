package checkout

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"paythread/conversations"
)

// The limits against card testing, as Options.Refused is told of them.
const (
	LimitRequest = "request" // the most attempts of one payment request
	LimitContact = "contact" // the declines of one customer
	LimitAddress = "address" // the tries of one address on the internet
)

// limited is the error of a press that a limit refuses.
type limited struct {
	limit string
	why   *conversations.Error
}

func (l *limited) Error() string { return "the limit of the " + l.limit + ": " + l.why.Error() }

// limitReasons are the refusals of AttemptStarted that are limits.
var limitReasons = map[string]string{
	conversations.ReasonTooManyAttempts: LimitRequest,
	conversations.ReasonTooManyDeclines: LimitContact,
	conversations.ReasonTooSoon:         LimitContact,
}

// noteRefused tells the operator that a limit stopped somebody. The address
// is in no log.
func (p *Page) noteRefused(v *visit, limit string) {
	p.log.Warn("a try to pay was refused by a limit", "merchant_id", v.merchant.ID, "payment_request_id", v.request.ID, "limit", limit)
	p.options.Refused(limit)
}

// findLimit finds out what keeps the customer from trying a card now, unless
// that is known. It asks only where a card could be tried.
func (p *Page) findLimit(v *visit) error {
	if v.limit != nil || v.merchant.CardTesting == (conversations.CardTesting{}) || !payable(v.request, v.now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	contact, err := p.options.Store.Contact(ctx, v.request.ContactID)
	if err != nil {
		return err
	}
	v.limit = contact.MayTry(v.merchant.CardTesting, v.now)
	return nil
}

// mayTry refuses a press that leads to a card form whose card would not be
// taken: nobody should type a card's number for nothing.
func (p *Page) mayTry(v *visit) error {
	if err := p.findLimit(v); err != nil {
		return err
	}
	if v.limit != nil {
		return &limited{LimitContact, v.limit}
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	return ofAddress(p.options.Store.MayTry(ctx, v.merchant.ID, v.caller, v.merchant.CardTesting))
}

// beginTry counts a press that may become a charge for the caller's address.
// A process that cannot count does not charge.
func (p *Page) beginTry(v *visit) (conversations.Try, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	try, err := p.options.Store.BeginTry(ctx, v.merchant.ID, v.caller, v.merchant.CardTesting)
	return try, ofAddress(err)
}

// ofAddress makes the refusal of an address a limited.
func ofAddress(err error) error {
	var why *conversations.Error
	if errors.As(err, &why) && why.Code == conversations.CodeConflict {
		return &limited{LimitAddress, why}
	}
	return err
}

// telling are the outcomes that tell the person who tried something about the
// card. Tries with any other are given back: the customer paid, or is not to
// blame.
var telling = map[conversations.Outcome]bool{
	conversations.OutcomeDeclined: true, conversations.OutcomePartial: true, conversations.OutcomeRiskDeclined: true,
	conversations.OutcomeAuthenticationPending: true,
}

// endTry tells the count what became of a try.
func (p *Page) endTry(v *visit, try conversations.Try, outcome conversations.Outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	if err := p.options.Store.EndTry(ctx, try, telling[outcome]); err != nil {
		// It stays counted until its window ends.
		p.log.Warn("the end of a try to pay was not counted", "payment_request_id", v.request.ID, "error", err)
	}
}

// refuseLimited answers a press that a limit refuses with the State that says
// so, and when it may be repeated.
func (p *Page) refuseLimited(c *fiber.Ctx, v *visit, no *limited) error {
	p.noteRefused(v, no.limit)
	v.limit = no.why
	if at := no.why.RetryAt; at != nil {
		p.retryAfter(c, *at)
	}
	return p.sendState(c, v, fiber.StatusTooManyRequests, no.why.Reason)
}

// retryAfter says when a press may be repeated.
func (p *Page) retryAfter(c *fiber.Ctx, at time.Time) {
	seconds := int64(max(0, at.Sub(p.options.Store.Now()))+time.Second-1) / int64(time.Second)
	c.Set(fiber.HeaderRetryAfter, strconv.FormatInt(seconds, 10))
}

// caller names the network that a call comes from, so that nobody can tell it
// from the name.
func (p *Page) caller(c *fiber.Ctx, merchantID string) string {
	return p.options.Nonces.blind(merchantID, networkOf(p.options.ClientAddress(c)))
}

// networkOf returns the network that an address counts as: an IPv6 customer
// has at least 64 bits of addresses to choose from.
func networkOf(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().String()
	}
	return a.String()
}

// blind returns a name for an address that stays the same as long as the first
// secret does, and differs between merchants. An unkeyed digest would not do:
// there are few enough addresses to try them all.
func (n *Nonces) blind(merchantID, address string) string {
	mac := nonceMAC(n.secrets()[0], "address", merchantID, []byte(address))
	return base64.RawURLEncoding.EncodeToString(mac[:16])
}
