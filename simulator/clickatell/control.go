package clickatell

import (
	"cmp"
	"maps"
	"net/http"
	"regexp"
	"slices"

	"paythread/simulator/faults"
)

// Change is what can be changed of a running integration; a member that is
// missing stays as it is.
type Change struct {
	Balance   *float64 `json:"balance"` // without any, sends are refused with 20
	Callbacks *string  `json:"callbacks"`
	Charset   *string  `json:"charset"`
}

// registerControl puts the control calls on mux; see the package's comment.
func (s *Simulator) registerControl(mux *http.ServeMux) {
	mux.HandleFunc("POST /clickatell/integrations/{integration}", faults.Control(func(r *http.Request, c Change) (any, error) {
		return nil, s.Change(r.PathValue("integration"), c)
	}))
	mux.HandleFunc("POST /clickatell/replies", faults.Control(func(_ *http.Request, in Reply) (any, error) {
		id, err := s.Reply(in)
		if err != nil {
			return nil, err
		}
		return map[string]string{"id": id}, nil
	}))
}

// Reply is a customer's message of any kind: a picture, a place, whatever comes
// next.
type Reply struct {
	Channel string         `json:"channel"` // WhatsApp (the default) or SMS
	From    string         `json:"from"`    // the customer, with or without +
	To      string         `json:"to"`      // the business; may be empty when the channel has one number only
	Event   string         `json:"event"`   // moMedia (the default), moLocation, ...
	Members map[string]any `json:"members"` // those of the event; ids, numbers and time are there already, and may be replaced
}

var eventName = regexp.MustCompile(`^[A-Za-z]{1,40}$`)

// Reply takes a customer's message as Say does, and returns its id. It always has
// the shape of the One API: the older ones know texts only. A *faults.InputError
// says what is wrong.
func (s *Simulator) Reply(in Reply) (id string, err error) {
	in.Channel, in.Event = cmp.Or(in.Channel, WhatsApp), cmp.Or(in.Event, "moMedia")
	from := "+" + digits(in.From)
	switch {
	case in.Channel != WhatsApp && in.Channel != SMS:
		return "", faults.Wrong("channel", "must be sms or whatsapp")
	case !e164.MatchString(from):
		return "", faults.Wrong("from", "must be a phone number with its country code")
	case !eventName.MatchString(in.Event):
		return "", faults.Wrong("event", "must be a name such as moMedia")
	}
	to, err := s.pickBusiness(in.Channel, in.To)
	if err != nil {
		return "", err
	}
	handset := s.phones.Handset(from)
	a, now := s.accountOf(in.Channel, to), s.cfg.Now()
	s.hear(a, pair{in.Channel, to, handset.E164}, "", now)
	id = s.newID()
	members := map[string]any{
		"channel": in.Channel, "messageId": id, "relatedMessageId": nil, "relatedClientMessageId": nil,
		"from": digits(handset.E164), "to": digits(to), "timestamp": now.UnixMilli(),
	}
	if in.Channel == WhatsApp {
		members["from"], members["whatsapp"] = handset.WaID, moWhatsApp{handset.Name}
	}
	maps.Copy(members, in.Members)
	body := a.envelope(map[string]any{in.Event: []any{members}})
	s.deliver("from "+handset.E164, CallWebhookInbound, a, a.InboundURL, body, nil)
	return id, nil
}

// pickBusiness finds a number of the channel; an empty one means the only one.
func (s *Simulator) pickBusiness(channel, number string) (string, error) {
	var numbers []string
	for _, n := range s.Numbers() {
		if n.Channel == channel {
			numbers = append(numbers, n.E164)
		}
	}
	switch {
	case number == "" && len(numbers) == 1:
		return numbers[0], nil
	case number == "":
		return "", faults.Wrong("to", "is missing: the channel has not exactly one number")
	case !slices.Contains(numbers, "+"+digits(number)):
		return "", faults.Missing("to", "is no number on this channel")
	}
	return "+" + digits(number), nil
}

// Change changes a running integration whole. A *faults.InputError says what is
// wrong; then nothing has changed.
func (s *Simulator) Change(integrationID string, c Change) error {
	a := s.account(integrationID)
	switch {
	case a == nil:
		return faults.Missing("integration", "is not the id of one")
	case c.Balance != nil && *c.Balance < 0:
		return faults.Wrong("balance", "must not be negative")
	case c.Callbacks != nil && *c.Callbacks != OneAPI && *c.Callbacks != Legacy:
		return faults.Wrong("callbacks", "must be one_api or legacy")
	case c.Charset != nil && (*c.Charset == "" || !slices.Contains(charsets, *c.Charset)):
		return faults.Wrong("charset", "must be UTF-8, UTF-16BE or ISO-8859-1")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&a.balance, c.Balance)
	set(&a.callbacks, c.Callbacks)
	set(&a.charset, c.Charset)
	return nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
