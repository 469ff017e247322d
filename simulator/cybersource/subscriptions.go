package cybersource

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	callSubscriptions = "cybersource.subscriptions"
	callKeys          = "cybersource.keys"
)

// registerSubscriptions adds the calls that set notifications up.
func (s *Simulator) registerSubscriptions(signed func(pattern, name string, read reader)) {
	signed("POST /kms/egress/v2/keys-sym", callKeys, s.readSignatureKey)
	signed("POST /kms/egress/v2/keys-asym", callKeys, s.readEncryptionKey)
	signed("GET /notification-subscriptions/v2/products/{organization}", callSubscriptions, s.readProducts)
	signed("POST /notification-subscriptions/v2/webhooks", callSubscriptions, s.readSubscribe)
	signed("GET /notification-subscriptions/v2/webhooks", callSubscriptions, s.readSubscriptions)
	signed("GET /notification-subscriptions/v2/webhooks/{id}", callSubscriptions, s.readSubscription)
	signed("PATCH /notification-subscriptions/v2/webhooks/{id}", callSubscriptions, s.readSubscriptionChange)
	signed("DELETE /notification-subscriptions/v2/webhooks/{id}", callSubscriptions, s.readUnsubscribe)
	signed("PUT /notification-subscriptions/v2/webhooks/{id}/status", callSubscriptions, s.readSubscriptionStatus)
	signed("POST /notification-subscriptions/v1/webhooks/{id}", callSubscriptions, s.readTestDelivery)
}

// looseInt is a number that the API writes as a string in some places.
type looseInt int

// UnmarshalJSON takes 3 and "3".
func (n *looseInt) UnmarshalJSON(b []byte) error {
	v, err := strconv.Atoi(string(bytes.Trim(b, `"`)))
	*n = looseInt(v)
	return err
}

type retryPolicy struct {
	Algorithm           string    `json:"algorithm"`
	FirstRetry          looseInt  `json:"firstRetry"`
	Interval            looseInt  `json:"interval"`
	NumberOfRetries     looseInt  `json:"numberOfRetries"`
	DeactivateFlag      looseBool `json:"deactivateFlag"`
	RepeatSequenceCount looseInt  `json:"repeatSequenceCount"`
	RepeatSequenceWait  looseInt  `json:"repeatSequenceWaitTime"`
}

// subscriptionRequest is a subscription to make, or what is to change of one.
type subscriptionRequest struct {
	Name           string       `json:"name"`
	Description    string       `json:"description"`
	Organization   string       `json:"organizationId"`
	ProductID      string       `json:"productId"` // the older form: one product
	EventTypes     []string     `json:"eventTypes"`
	Products       []Product    `json:"products"`
	URL            string       `json:"webhookUrl"`
	HealthCheckURL string       `json:"healthCheckUrl"`
	Scope          string       `json:"notificationScope"`
	RetryPolicy    *retryPolicy `json:"retryPolicy"`
}

// keyRequest is the body of both ways to make a key.
type keyRequest struct {
	Action string `json:"clientRequestAction"`
	Key    struct {
		Provider       string   `json:"provider"`
		Tenant         string   `json:"tenant"`
		Type           string   `json:"keyType"`
		Organization   string   `json:"organizationId"`
		ID             string   `json:"keyId"`
		Public         string   `json:"pub"`
		ExpiryDuration looseInt `json:"expiryDuration"`
	} `json:"keyInformation"`
}

func (s *Simulator) readKeyRequest(c *call, action, kind string) (keyRequest, *answer) {
	var req keyRequest
	refuse := func(reason, field string) (keyRequest, *answer) {
		a := s.refuse(reason, field)
		return req, &a
	}
	if err := json.Unmarshal(c.body, &req); err != nil {
		return refuse("INVALID_DATA", jsonField(err))
	}
	switch {
	case req.Action != action:
		return refuse("INVALID_DATA", "clientRequestAction")
	case req.Key.Type != kind:
		return refuse("INVALID_DATA", "keyInformation.keyType")
	case req.Key.Organization != c.merchant.id:
		return refuse("INVALID_DATA", "keyInformation.organizationId")
	}
	return req, nil
}

// readSignatureKey makes the key that signs an organization's notifications. It replaces the one before.
func (s *Simulator) readSignatureKey(c *call) (string, operation, *answer) {
	req, refusal := s.readKeyRequest(c, "CREATE", "sharedSecret")
	if refusal != nil {
		return "", nil, refusal
	}
	return "", func(commit bool) (answer, bool) {
		if !commit {
			return answer{}, true
		}
		days := int(req.Key.ExpiryDuration)
		if days <= 0 {
			days = 365
		}
		key := notifyKey{id: newUUID(), key: []byte(randomText(upperAlphanumerics, 32)), until: s.now().AddDate(0, 0, days)}
		s.notify.keys[c.merchant.id] = key
		return answer{status: http.StatusCreated, body: object{
			"submitTimeUtc": stamp(s.now()), "status": "SUCCESS", "keyInformation": object{
				"provider": req.Key.Provider, "tenant": req.Key.Tenant, "organizationId": c.merchant.id, "keyType": req.Key.Type,
				"keyId": key.id, "key": base64.StdEncoding.EncodeToString(key.key), "status": "ACTIVE", "expirationDate": stamp(key.until),
			},
		}}, true
	}, nil
}

// readEncryptionKey stores the key that an organization's payloads may be encrypted to.
func (s *Simulator) readEncryptionKey(c *call) (string, operation, *answer) {
	req, refusal := s.readKeyRequest(c, "STORE", "publickey")
	if refusal != nil {
		return "", nil, refusal
	}
	key, err := parsePublicKey(req.Key.Public)
	if err != nil {
		a := s.refuse("INVALID_DATA", "keyInformation.pub")
		return "", nil, &a
	}
	return "", func(commit bool) (answer, bool) {
		if !commit {
			return answer{}, true
		}
		id := orElse(req.Key.ID, newUUID())
		s.notify.encryptTo[c.merchant.id] = encryptKey{id, key}
		return answer{status: http.StatusCreated, body: object{
			"submitTimeUtc": stamp(s.now()), "status": "SUCCESS", "keyInformation": object{
				"provider": req.Key.Provider, "tenant": req.Key.Tenant, "organizationId": c.merchant.id, "keyType": req.Key.Type,
				"keyId": id, "status": "ACTIVE", "expirationDate": stamp(s.now().AddDate(1, 0, 0)),
			},
		}}, true
	}, nil
}

func (s *Simulator) readProducts(c *call) (string, operation, *answer) {
	organization := c.r.PathValue("organization")
	return "", func(bool) (answer, bool) {
		if organization != c.merchant.id {
			return s.notFound(c), true
		}
		var list []object
		for _, p := range products() {
			var types []object
			for _, t := range p.EventTypes {
				types = append(types, object{"eventName": t, "payloadEncryption": s.notify.encryptTo[organization].key != nil})
			}
			list = append(list, object{"productId": p.ID, "eventTypes": types})
		}
		return answer{status: http.StatusOK, body: list}, true
	}, nil
}

// checkSubscription names the first field of a subscription that cannot be right.
func (s *Simulator) checkSubscription(merchant string, sub *subscription) (field string, ok bool) {
	switch {
	case sub.Organization != merchant:
		return "organizationId", false
	case len(sub.Products) == 0:
		return "products", false
	case !s.takesURL(sub.URL):
		return "webhookUrl", false
	case sub.HealthCheckURL != "" && !s.takesURL(sub.HealthCheckURL):
		return "healthCheckUrl", false
	case s.notify.keys[merchant].key == nil:
		return "securityPolicy", false // there is no key to sign with
	}
	known := products()
	for _, p := range sub.Products {
		i := slices.IndexFunc(known, func(k Product) bool { return k.ID == p.ID })
		if i < 0 {
			return "products.productId", false
		}
		for _, t := range p.EventTypes {
			if !slices.Contains(known[i].EventTypes, t) {
				return "products.eventTypes", false
			}
		}
	}
	return "", true
}

// takesURL says whether notifications may go there: https on two ports, unless pages may be on http, too.
func (s *Simulator) takesURL(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" {
		return false
	}
	if s.cfg.AllowHTTPOrigins {
		return u.Scheme == "https" || u.Scheme == "http"
	}
	return u.Scheme == "https" && slices.Contains([]string{"", "443", "8443"}, u.Port())
}

// apply puts what a request says into a subscription.
func (s *Simulator) apply(req subscriptionRequest, sub *subscription) {
	set := func(field *string, v string) { *field = orElse(v, *field) }
	set(&sub.Name, req.Name)
	set(&sub.description, req.Description)
	set(&sub.Organization, req.Organization)
	set(&sub.URL, req.URL)
	set(&sub.HealthCheckURL, req.HealthCheckURL)
	set(&sub.scope, req.Scope)
	switch {
	case len(req.Products) > 0:
		sub.Products = req.Products
	case req.ProductID != "":
		sub.Products = []Product{{req.ProductID, req.EventTypes}}
	}
	if p := req.RetryPolicy; p != nil {
		sub.retries = int(p.NumberOfRetries)
		sub.firstRetry = time.Duration(p.FirstRetry) * s.cfg.NotifyRetryAfter
		sub.interval = time.Duration(p.Interval) * s.cfg.NotifyRetryAfter
	}
}

func (s *Simulator) readSubscribe(c *call) (string, operation, *answer) {
	req, refusal := s.readSubscriptionRequest(c)
	if refusal != nil {
		return "", nil, refusal
	}
	return "", func(commit bool) (answer, bool) {
		sub := &subscription{
			Subscription: Subscription{ID: newUUID(), Payload: PayloadInner},
			scope:        "SELF", status: subscriptionInactive, created: s.now(),
			retries: defaultRetries, firstRetry: s.cfg.NotifyRetryAfter, interval: s.cfg.NotifyRetryAfter,
		}
		s.apply(req, sub)
		if field, ok := s.checkSubscription(c.merchant.id, sub); !ok {
			return s.refuse("INVALID_DATA", field), false
		}
		if s.notify.encryptTo[c.merchant.id].key != nil {
			sub.Payload = PayloadEncrypted
		}
		if commit {
			s.notify.subscriptions = append(s.notify.subscriptions, sub)
			s.checkHealth(sub.ID)
		}
		return answer{status: http.StatusCreated, body: sub.body()}, true
	}, nil
}

func (s *Simulator) readSubscriptionRequest(c *call) (subscriptionRequest, *answer) {
	var req subscriptionRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		a := s.refuse("INVALID_DATA", jsonField(err))
		return req, &a
	}
	return req, nil
}

// body is how a subscription is shown.
func (sub *subscription) body() object {
	return object{
		"webhookId": sub.ID, "organizationId": sub.Organization, "name": sub.Name, "description": sub.description, "products": sub.Products,
		"webhookUrl": sub.URL, "healthCheckUrl": sub.HealthCheckURL, "status": sub.status, "notificationScope": sub.scope,
		"createdOn": stamp(sub.created), "securityPolicy": object{"securityType": "KEY", "proxyType": "external"},
		"retryPolicy": object{"algorithm": "ARITHMETIC", "numberOfRetries": sub.retries, "deactivateFlag": "false"},
	}
}

func (s *Simulator) readSubscriptions(c *call) (string, operation, *answer) {
	q := c.r.URL.Query()
	return "", func(bool) (answer, bool) {
		list := []object{}
		for _, sub := range s.notify.subscriptions {
			of := func(p Product) bool {
				return matches(q.Get("productId"), p.ID) && (q.Get("eventType") == "" || slices.Contains(p.EventTypes, q.Get("eventType")))
			}
			if sub.Organization == c.merchant.id && slices.ContainsFunc(sub.Products, of) {
				list = append(list, sub.body())
			}
		}
		return answer{status: http.StatusOK, body: list}, true
	}, nil
}

// onSubscription makes a call that is about one of the merchant's own subscriptions.
func (s *Simulator) onSubscription(c *call, do func(sub *subscription, commit bool) (answer, bool)) (string, operation, *answer) {
	id := c.r.PathValue("id")
	return "", func(commit bool) (answer, bool) {
		sub, found := s.findSubscription(id)
		if !found || sub.Organization != c.merchant.id {
			return s.notFound(c), false
		}
		return do(sub, commit)
	}, nil
}

func (s *Simulator) readSubscription(c *call) (string, operation, *answer) {
	return s.onSubscription(c, func(sub *subscription, _ bool) (answer, bool) {
		return answer{status: http.StatusOK, body: sub.body()}, true
	})
}

func (s *Simulator) readSubscriptionChange(c *call) (string, operation, *answer) {
	req, refusal := s.readSubscriptionRequest(c)
	if refusal != nil {
		return "", nil, refusal
	}
	return s.onSubscription(c, func(sub *subscription, commit bool) (answer, bool) {
		changed := *sub
		s.apply(req, &changed)
		if field, ok := s.checkSubscription(c.merchant.id, &changed); !ok {
			return s.refuse("INVALID_DATA", field), false
		}
		if commit {
			*sub = changed
			s.checkHealth(sub.ID)
		}
		return answer{status: http.StatusOK, body: changed.body()}, true
	})
}

func (s *Simulator) readUnsubscribe(c *call) (string, operation, *answer) {
	return s.onSubscription(c, func(sub *subscription, commit bool) (answer, bool) {
		if commit {
			s.notify.subscriptions = slices.DeleteFunc(s.notify.subscriptions, func(x *subscription) bool { return x == sub })
		}
		return answer{status: http.StatusOK}, true
	})
}

func (s *Simulator) readSubscriptionStatus(c *call) (string, operation, *answer) {
	var req struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(c.body, &req); err != nil || req.Status != subscriptionActive && req.Status != subscriptionInactive {
		a := s.refuse("INVALID_DATA", "status")
		return "", nil, &a
	}
	return s.onSubscription(c, func(sub *subscription, commit bool) (answer, bool) {
		if commit {
			sub.status = req.Status
		}
		return answer{status: http.StatusOK, body: object{"webhookId": sub.ID, "status": req.Status}}, true
	})
}

// readTestDelivery sends something to the address, whatever the subscription's state.
func (s *Simulator) readTestDelivery(c *call) (string, operation, *answer) {
	return s.onSubscription(c, func(sub *subscription, commit bool) (answer, bool) {
		if commit {
			e := event{product: sub.Products[0].ID, kind: "test", at: s.now(), payload: object{"message": "A test of this webhook"}}
			if types := sub.Products[0].EventTypes; len(types) > 0 {
				e.kind = types[0]
			}
			request, err := s.notification(sub, e, false, 0)
			if err != nil {
				s.log.Error("notification not written", "error", err)
				return answer{status: http.StatusInternalServerError}, true
			}
			s.notify.courier.Go(func(ctx context.Context) {
				_, _ = s.transmit(ctx, request, "") // a test is not repeated
			})
		}
		return answer{status: http.StatusCreated, body: object{"webhookId": sub.ID, "status": "SUCCESS"}}, true
	})
}

// checkHealth pings a subscription's health check address, and activates the subscription if it is well.
// One that does not answer is suspended. The caller holds the lock.
func (s *Simulator) checkHealth(id string) {
	s.notify.courier.Go(func(ctx context.Context) {
		s.mu.Lock()
		sub, found := s.findSubscription(id)
		address := ""
		if found {
			address = sub.HealthCheckURL
		}
		s.mu.Unlock()
		if address == "" {
			return // without such an address somebody has to activate it
		}
		well := s.ping(ctx, http.MethodGet, address) && s.ping(ctx, http.MethodPost, address)
		s.mu.Lock()
		defer s.mu.Unlock()
		if sub, found := s.findSubscription(id); found && ctx.Err() == nil {
			sub.status = subscriptionSuspended
			if well {
				sub.status = subscriptionActive
			}
		}
	})
}

func (s *Simulator) ping(ctx context.Context, method, address string) bool {
	req, err := http.NewRequestWithContext(ctx, method, address, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := s.notify.client.Do(req)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)) // so that the connection can be used again
	_ = resp.Body.Close()                                          // what counts is the status
	return resp.StatusCode == http.StatusOK
}
