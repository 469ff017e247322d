package cybersource

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"paythread/simulator/faults"
)

// CallNotification is what faults and the call log name a notification.
const CallNotification = "cybersource.webhook.notification"

// The ways to write a notification and what its signature covers. The documents, the official plug-ins
// and those who receive them differ.
const (
	PayloadInner     = "inner"     // signed over the payload member alone, as the official plug-ins check
	PayloadRaw       = "raw"       // signed over the whole body
	PayloadEncrypted = "encrypted" // {"encData":"<JWE>"}, signed over the text inside
)

// The states of a subscription.
const (
	subscriptionActive    = "ACTIVE"
	subscriptionInactive  = "INACTIVE"
	subscriptionSuspended = "SUSPENDED"
)

// Product is what a subscription is about.
type Product struct {
	ID         string   `json:"productId"`
	EventTypes []string `json:"eventTypes"`
}

// Subscription is an address that is told what happens.
type Subscription struct {
	ID             string // webhookId; made when empty
	Organization   string // a merchant's ID
	Name           string
	URL            string
	HealthCheckURL string
	Products       []Product // empty: everything that there is
	// KeyID and Key, base64, sign what the organization is sent; one key serves all its subscriptions.
	KeyID string
	Key   string
	// Payload is one of the constants; empty for inner. Encrypted needs EncryptTo.
	Payload      string
	EncryptTo    *rsa.PublicKey
	EncryptKeyID string
}

// products are what an organization may subscribe to.
func products() []Product {
	var payments []string
	for _, service := range []string{"authorization", "capture", "refund", "credit", "void", "reversal"} {
		for _, status := range []string{"accepted", "updated", "rejected", "reviewed", "partiallyApproved"} {
			payments = append(payments, "payments."+service+".status."+status)
		}
	}
	return []Product{
		{productCheckout, []string{eventResults}},
		{productPayments, payments},
		{productDecisions, []string{eventCaseAccepted, eventCaseRejected, eventProfileRejected}},
	}
}

const (
	productCheckout      = "unifiedCheckout"
	productPayments      = "payments"
	productDecisions     = "decisionManager"
	eventResults         = "uc.orders.transactionresults"
	eventCaseAccepted    = "risk.casemanagement.decision.accept"
	eventCaseRejected    = "risk.casemanagement.decision.reject"
	eventProfileRejected = "risk.profile.decision.reject"
)

// subscription is a Subscription as it is kept, guarded by Simulator.mu.
type subscription struct {
	Subscription
	description string
	scope       string
	status      string
	retries     int
	firstRetry  time.Duration
	interval    time.Duration
	created     time.Time
	nested      bool // the payload's facts lie in a member called data
}

// notifyKey signs what an organization is sent.
type notifyKey struct {
	id    string
	key   []byte
	until time.Time
}

// encryptKey is what an organization's payloads are encrypted to.
type encryptKey struct {
	id  string
	key *rsa.PublicKey
}

// notifier is everything about notifications, guarded by Simulator.mu except the courier.
type notifier struct {
	subscriptions []*subscription // oldest first
	keys          map[string]notifyKey
	encryptTo     map[string]encryptKey
	courier       *faults.Courier
	client        *http.Client
}

const (
	notificationTimeout = 10 * time.Second
	defaultRetries      = 3
)

func newNotifier(set *faults.Set) notifier {
	return notifier{
		keys: map[string]notifyKey{}, encryptTo: map[string]encryptKey{}, courier: set.NewCourier(),
		client: &http.Client{
			Timeout: notificationTimeout, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close ends the notifications that are under way; what has not been sent is lost. A second call does nothing.
func (s *Simulator) Close() {
	s.notify.courier.Close()
	s.notify.client.CloseIdleConnections()
}

// subscribe checks a configured subscription and takes it. It is active at once.
func (s *Simulator) subscribe(sub Subscription) error {
	known := slices.ContainsFunc(s.cfg.Merchants, func(m Merchant) bool { return m.ID == sub.Organization })
	target, err := url.Parse(sub.URL)
	key, keyErr := base64.StdEncoding.DecodeString(sub.Key)
	switch {
	case !known:
		return fmt.Errorf("cybersource: a subscription is of %q, which is no merchant", sub.Organization)
	case err != nil || target.Host == "":
		return fmt.Errorf("cybersource: the subscription of %q has no URL", sub.Organization)
	case sub.KeyID == "" || keyErr != nil || len(key) == 0:
		return fmt.Errorf("cybersource: the subscription of %q needs a KeyID and a Key in base64", sub.Organization)
	}
	if before, ok := s.notify.keys[sub.Organization]; ok && (before.id != sub.KeyID || !bytes.Equal(before.key, key)) {
		return fmt.Errorf("cybersource: the subscriptions of %q have different keys", sub.Organization)
	}
	if sub.EncryptTo != nil {
		s.notify.encryptTo[sub.Organization] = encryptKey{sub.EncryptKeyID, sub.EncryptTo}
	}
	sub.Payload = orElse(sub.Payload, PayloadInner)
	if err := s.checkPayload(sub.Organization, sub.Payload); err != nil {
		return err
	}
	sub.ID = orElse(sub.ID, newUUID())
	sub.Name = orElse(sub.Name, "paythread")
	if len(sub.Products) == 0 {
		sub.Products = products()
	}
	s.notify.keys[sub.Organization] = notifyKey{id: sub.KeyID, key: key, until: s.now().AddDate(1, 0, 0)}
	s.notify.subscriptions = append(s.notify.subscriptions, &subscription{
		Subscription: sub, scope: "SELF", status: subscriptionActive, created: s.now(),
		retries: defaultRetries, firstRetry: s.cfg.NotifyRetryAfter, interval: s.cfg.NotifyRetryAfter,
	})
	return nil
}

// checkPayload refuses a way of writing that is not known, or that lacks its key.
func (s *Simulator) checkPayload(organization, payload string) error {
	switch payload {
	case PayloadInner, PayloadRaw:
		return nil
	case PayloadEncrypted:
		if s.notify.encryptTo[organization].key != nil {
			return nil
		}
		return errors.New("cybersource: encrypted payloads need a public key of the organization's")
	}
	return errors.New("cybersource: a payload is inner, raw or encrypted")
}

// newUUID makes a random UUID, version 4.
func newUUID() string {
	h := strings.ToLower(randomText("0123456789abcdef", 32))
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-a" + h[17:20] + "-" + h[20:]
}

// event is one thing to tell.
type event struct {
	product string
	kind    string
	code    string // of the transaction, for the call log
	at      time.Time
	payload object
}

// announce hands an event over to everyone who subscribed. The caller holds the lock.
func (s *Simulator) announce(merchant string, e event) {
	e.at = s.now()
	for _, sub := range s.notify.subscriptions {
		if sub.Organization == merchant && sub.status == subscriptionActive && sub.wants(e) {
			s.post(sub.ID, e)
		}
	}
}

func (sub *subscription) wants(e event) bool {
	return slices.ContainsFunc(sub.Products, func(p Product) bool {
		return p.ID == e.product && (len(p.EventTypes) == 0 || slices.Contains(p.EventTypes, e.kind))
	})
}

func (s *Simulator) post(subscription string, e event) {
	fault := s.faults.Take(CallNotification)
	due := time.Now().Add(s.cfg.NotifyAfter) // from now, not from when the one before it was sent
	s.notify.courier.Carry(subscription, fault, func(ctx context.Context) {
		if faults.Wait(ctx, time.Until(due)) {
			s.deliver(ctx, subscription, e, fault.Forges(), 0)
		}
	})
}

// deliver posts an event, and again after a while if it was not taken.
func (s *Simulator) deliver(ctx context.Context, id string, e event, forged bool, attempt int) {
	s.mu.Lock()
	sub, found := s.findSubscription(id)
	if !found || sub.status != subscriptionActive {
		s.mu.Unlock()
		return
	}
	request, err := s.notification(sub, e, forged, attempt)
	retries, wait := sub.retries, sub.interval
	if attempt == 0 {
		wait = sub.firstRetry
	}
	s.mu.Unlock()
	if err != nil {
		s.log.Error("notification not written", "error", err)
		return
	}
	status, err := s.transmit(ctx, request, e.code)
	if err != nil || status >= 200 && status < 300 {
		return // the end of the simulator, or taken
	}
	if attempt < retries {
		s.notify.courier.Go(func(ctx context.Context) {
			if faults.Wait(ctx, wait) {
				s.deliver(ctx, id, e, forged, attempt+1)
			}
		})
	}
}

// findSubscription returns a subscription that is there. The caller holds the lock.
func (s *Simulator) findSubscription(id string) (*subscription, bool) {
	i := slices.IndexFunc(s.notify.subscriptions, func(sub *subscription) bool { return sub.ID == id })
	if i < 0 {
		return nil, false
	}
	return s.notify.subscriptions[i], true
}

// outgoing is a request that is ready to be sent.
type outgoing struct {
	url    string
	header http.Header
	body   []byte
}

// transmit sends a request and logs it. An answer that did not come is status 0; the error says that
// ctx has ended.
func (s *Simulator) transmit(ctx context.Context, o outgoing, ref string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, bytes.NewReader(o.body))
	if err != nil {
		s.log.Error("notification not sent", "error", err)
		return 0, nil
	}
	req.Header = o.header
	status := 0
	resp, err := s.notify.client.Do(req)
	if err == nil {
		status = resp.StatusCode
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)) // so that the connection can be used again
		_ = resp.Body.Close()                                          // what counts is the status
	}
	s.faults.Log(faults.Call{At: s.now(), Call: CallNotification, Method: http.MethodPost, Path: req.URL.Path, Status: status, Ref: ref})
	return status, ctx.Err()
}

// notification writes and signs one attempt of telling an event. The caller holds the lock.
func (s *Simulator) notification(sub *subscription, e event, forged bool, attempt int) (outgoing, error) {
	return s.notificationAt(sub, e, forged, attempt, s.now())
}

// notificationAt is notification with the time that it is signed at.
func (s *Simulator) notificationAt(sub *subscription, e event, forged bool, attempt int, at time.Time) (outgoing, error) {
	trace, requestType := newUUID(), "NEW"
	if attempt > 0 {
		requestType = "RETRY"
	}
	facts := e.payload
	if sub.nested {
		facts = object{"data": facts, "organizationId": sub.Organization}
	}
	payload, err := encodePlain(facts)
	if err != nil {
		return outgoing{}, err
	}
	body, err := encodePlain(struct {
		EventType string          `json:"eventType"`
		WebhookID string          `json:"webhookId"`
		ProductID string          `json:"productId"`
		Org       string          `json:"organizationId"`
		Date      string          `json:"eventDate"`
		Trace     string          `json:"transactionTraceId"`
		Retry     int             `json:"retryNumber"`
		Payload   json.RawMessage `json:"payload"`
		Type      string          `json:"requestType"`
	}{e.kind, sub.ID, e.product, sub.Organization, e.at.UTC().Format("2006-01-02T15:04:05"), trace, attempt, payload, requestType})
	if err != nil {
		return outgoing{}, err
	}
	signed := payload
	switch sub.Payload {
	case PayloadRaw:
		signed = body
	case PayloadEncrypted:
		signed = body
		to := s.notify.encryptTo[sub.Organization]
		sealed, err := sealJWE(to.key, to.id, body, at)
		if err != nil {
			return outgoing{}, err
		}
		if body, err = encodePlain(object{"encData": sealed}); err != nil {
			return outgoing{}, err
		}
	}
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("v-c-signature", s.signature(sub.Organization, at, signed, forged))
	h.Set("v-c-event-type", e.kind)
	h.Set("v-c-organization-id", sub.Organization)
	h.Set("v-c-product-name", e.product)
	h.Set("v-c-webhook-id", sub.ID)
	h.Set("v-c-request-type", requestType)
	h.Set("v-c-retry-count", strconv.Itoa(attempt))
	h.Set("v-c-transaction-trace-id", trace)
	return outgoing{sub.URL, h, body}, nil
}

// signature is the value of v-c-signature. A forged one is made with a key of nobody's.
func (s *Simulator) signature(organization string, at time.Time, text []byte, forged bool) string {
	key := s.notify.keys[organization]
	secret := key.key
	if forged {
		secret = []byte(randomText(digits, 32))
	}
	stamp := strconv.FormatInt(at.UnixMilli(), 10)
	mac := hmac.New(sha256.New, secret)
	_, _ = io.WriteString(mac, stamp+".") // a hash takes everything
	_, _ = mac.Write(text)                // the same
	return fmt.Sprintf("t=%s;keyId=%s;sig=%s", stamp, key.id, base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// encodePlain is JSON without the escapes that only HTML needs.
func encodePlain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// transactionPayload tells of a transaction as its answer did.
func transactionPayload(r *record) object {
	p := object{
		"id": r.ID, "status": r.Status, "submitTimeUtc": stamp(r.Time), "reconciliationId": r.reconciliationID,
		"clientReferenceInformation": referenceBody(r),
		"orderInformation":           object{"amountDetails": object{"totalAmount": r.Amount, "currency": r.Currency}},
	}
	if r.Reason != "" {
		p["errorInformation"] = object{"reason": r.Reason, "message": r.result.facts().message}
	}
	return p
}

// announcePayment tells of a payment that was tried. The caller holds the lock.
func (s *Simulator) announcePayment(r *record) {
	word := ""
	switch {
	case r.Kind == KindError || r.Kind == KindAuthentication || r.Status == statusPending:
		return // there is nothing to tell yet, or ever
	case r.review == underReview:
		word = "reviewed"
	case r.Status == statusPartial:
		word = "partiallyApproved"
	case r.Kind == KindDecline || r.Status == statusRiskDeclined:
		word = "rejected"
	default:
		word = "accepted"
	}
	s.announceStatus(r, "authorization", word)
	if r.Kind == KindSale {
		s.announceStatus(r, "capture", "accepted")
	}
	if r.Reason == "DECISION_PROFILE_REJECT" {
		s.announce(r.Merchant, event{product: productDecisions, kind: eventProfileRejected, code: r.Code, payload: decisionPayload(r, "REJECT")})
	}
}

func (s *Simulator) announceStatus(r *record, service, word string) {
	s.announce(r.Merchant, event{product: productPayments, kind: "payments." + service + ".status." + word, code: r.Code, payload: transactionPayload(r)})
}

// followOnServices are what the kinds of follow-on transactions are called in event types.
var followOnServices = map[string]string{KindCapture: "capture", KindReversal: "reversal", KindRefund: "refund", KindVoid: "void"}

// announceFollowOn tells of a capture, reversal, refund or void. The caller holds the lock.
func (s *Simulator) announceFollowOn(r *record) {
	s.announceStatus(r, followOnServices[r.Kind], "accepted")
}

// decisionPayload tells of a reviewer's decision about a payment.
func decisionPayload(r *record, decision string) object {
	p := transactionPayload(r)
	p["referenceNumber"] = r.Code
	p["decision"] = decision
	return p
}

// announceDecision tells how a review ended. The caller holds the lock.
func (s *Simulator) announceDecision(r *record, accept bool) {
	kind, decision := eventCaseRejected, "REJECT"
	if accept {
		kind, decision = eventCaseAccepted, "ACCEPT"
	}
	s.announce(r.Merchant, event{product: productDecisions, kind: kind, code: r.Code, payload: decisionPayload(r, decision)})
	s.announceStatus(r, "authorization", "updated")
	if accept && r.Kind == KindSale {
		s.announceStatus(r, "capture", "accepted")
	}
}

// announceResult tells of a payment that the widget completed. The caller holds the lock.
func (s *Simulator) announceResult(merchant, code string, result object) {
	s.announce(merchant, event{product: productCheckout, kind: eventResults, code: code, payload: result})
}
