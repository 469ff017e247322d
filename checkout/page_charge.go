package checkout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// errTokenRefused says that a transient token was not made with a context of
// this request, or is too old. The customer enters the card again.
var errTokenRefused = errors.New("the transient token was refused")

// reasonNotSent is the result's reason for a charge whose time to be sent was
// over before it could be.
const reasonNotSent = "not_sent_in_time"

// charge makes one attempt with a transient token and returns the request as
// it stands afterwards. Whatever the request's state is, a press that may not
// charge changes nothing and returns that state.
//
// It does not end when the customer's connection does: from the commit of
// AttemptStarted on, this process alone may charge, and whatever the platform
// answers has to be recorded.
func (p *Page) charge(v *visit, token string) (*conversations.PaymentRequest, error) {
	r := v.request
	if !payable(r, v.now) {
		if failed(r) {
			p.noteRefused(v, LimitRequest)
		}
		return r, nil
	}
	platform, ok := p.options.Platform(r.MerchantID)
	if !ok {
		return nil, errNoPlatform
	}
	// Before the token's signature, which costs more to check.
	try, err := p.beginTry(v)
	if err != nil {
		// Behind another press of the same customer's, that one's outcome is
		// what they wait for.
		if now, ended := p.current(r.ID); ended == nil && !payable(now, p.options.Store.Now()) {
			return now, nil
		}
		return nil, err
	}
	after, result, err := p.attempt(v, platform, token)
	p.endTry(v, try, result.Outcome)
	if err == nil && failed(after) {
		p.noteRefused(v, LimitRequest)
	}
	return after, err
}

// failed tells whether the merchant's most attempts were made.
func failed(r *conversations.PaymentRequest) bool {
	return r.Lifecycle == conversations.Failed && r.Reason == conversations.ReasonTooManyAttempts
}

// attempt starts one and charges. The result is empty if nothing was charged.
func (p *Page) attempt(v *visit, platform platforms.Platform, token string) (*conversations.PaymentRequest, conversations.Result, error) {
	r := v.request
	var none conversations.Result
	checked, err := platform.CheckToken(token, r.Contexts, v.now)
	if err != nil {
		return nil, none, fmt.Errorf("%w: %w", errTokenRefused, err)
	}
	started, err := p.start(r, checked, token)
	if attempt := latest(started.Request); attempt != nil && errors.Is(err, conversations.ErrTooFewReplicas) {
		return p.giveUp(r, attempt, err)
	}
	if err != nil {
		// Not known whether it was committed, so nothing may be charged. If it
		// was, the recovery timer finds that the platform knows of nothing.
		return nil, none, fmt.Errorf("start attempt: %w", err)
	}
	if started.Refused != nil && limitReasons[started.Refused.Reason] != "" {
		return nil, none, &limited{limitReasons[started.Refused.Reason], started.Refused}
	}
	if started.Duplicate || started.Refused != nil {
		now, err := p.current(r.ID)
		return now, none, err
	}
	attempt := latest(started.Request)
	if attempt == nil {
		return nil, none, errors.New("start attempt: the store returned no attempt")
	}
	result := p.send(platform, platforms.ChargeRequest{Attempt: *attempt, Request: started.Request, TransientToken: token})
	p.options.Charged(attempt.Platform, result)
	answered, err := p.record(r, attempt, result)
	if err != nil {
		// It stays processing; the recovery timer asks the platform.
		p.log.Error("outcome of a charge not recorded", "audit", true, "payment_request_id", r.ID, "attempt", attempt.Code, "outcome", string(result.Outcome), "error", err)
		return started.Request, result, nil
	}
	if answered.Request == nil {
		now, err := p.current(r.ID)
		return now, result, err
	}
	return answered.Request, result, nil
}

// giveUp takes back an attempt whose commit too few replicas have: nothing was
// sent for it and nothing will be, so that the customer need not wait until the
// platform surely knows of nothing. It is tried once. A failover may lose the
// attempt and another one may get its number, which is none of this one's
// business.
func (p *Page) giveUp(r *conversations.PaymentRequest, attempt *conversations.Attempt, why error) (*conversations.PaymentRequest, conversations.Result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	result := conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: reasonNotSent}
	p.log.Warn("charge not sent, since too few replicas know of it", "audit", true, "payment_request_id", r.ID, "attempt", attempt.Code)
	applied, err := p.options.Store.Apply(ctx, r.ContactID, conversations.AttemptAnswered{
		RequestID: r.ID, Attempt: attempt.N, Result: result, StartedAt: attempt.StartedAt,
	}, conversations.Once{})
	if err != nil || applied.Request == nil {
		return nil, conversations.Result{}, fmt.Errorf("start attempt: %w", why)
	}
	return applied.Request, result, nil
}

// start commits AttemptStarted. A token starts one attempt at most: the second
// press with it is a duplicate, even when the first was declined. A press that
// is refused uses nothing up.
func (p *Page) start(r *conversations.PaymentRequest, checked platforms.Token, token string) (conversations.Applied, error) {
	unique := checked.JTI
	if unique == "" {
		unique = token
	}
	digest := sha256.Sum256([]byte(r.ID + "\n" + unique))
	key := hex.EncodeToString(digest[:16])
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	return p.options.Store.Apply(ctx, r.ContactID, conversations.AttemptStarted{
		RequestID:      r.ID,
		Platform:       p.options.PlatformName(r.MerchantID),
		TokenExpiresAt: checked.ExpiresAt,
		CardBrand:      checked.CardBrand,
		CardLast4:      checked.CardLast4,
	}, conversations.Once{Key: "charge:" + key, Hash: key, OnlyDone: true})
}

// latest returns the attempt that a commit of AttemptStarted made.
func latest(r *conversations.PaymentRequest) *conversations.Attempt {
	if r == nil || len(r.Attempts) == 0 {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// send calls the platform, once, unless the time to send is over. From here on
// the platform sees to it that a slow connection does not send later, and leaves
// the audit line of what it did.
func (p *Page) send(platform platforms.Platform, charge platforms.ChargeRequest) conversations.Result {
	if !p.options.Store.Now().Before(charge.Attempt.SendBy) {
		p.log.Warn("charge not sent in time", "audit", true, "payment_request_id", charge.Request.ID, "attempt", charge.Attempt.Code)
		return conversations.Result{Outcome: conversations.OutcomeNotTaken, Reason: reasonNotSent}
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.options.ChargeWithin)
	defer cancel()
	p.log.Info("charge sent", "audit", true, "payment_request_id", charge.Request.ID, "attempt", charge.Attempt.Code,
		"platform", charge.Attempt.Platform, "amount", charge.Attempt.Amount.Decimal(), "currency", charge.Attempt.Amount.Currency)
	result := platform.Charge(ctx, charge)
	if result.Outcome == "" {
		result.Outcome = conversations.OutcomeUnknown // never read silence as a refusal
	}
	return result
}

// record commits what the platform answered. It tries again while the store is
// unavailable, for Options.RecordWithin at most.
func (p *Page) record(r *conversations.PaymentRequest, attempt *conversations.Attempt, result conversations.Result) (conversations.Applied, error) {
	all, stop := context.WithTimeout(context.Background(), p.options.RecordWithin)
	defer stop()
	event := conversations.AttemptAnswered{RequestID: r.ID, Attempt: attempt.N, Result: result}
	// The key makes a repeat harmless whose first answer got lost.
	once := conversations.Once{Key: "answered:" + attempt.Code}
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		ctx, cancel := context.WithTimeout(all, storeWithin)
		outcome, err := p.options.Store.Apply(ctx, r.ContactID, event, once)
		cancel()
		if err == nil {
			return outcome, nil
		}
		select {
		case <-all.Done():
			return conversations.Applied{}, fmt.Errorf("record outcome: %w", err)
		case <-time.After(pause):
		}
	}
}

// current reads the request as it stands now.
func (p *Page) current(id string) (*conversations.PaymentRequest, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeWithin)
	defer cancel()
	return p.options.Store.Request(ctx, id)
}
