package twilio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

const (
	// pageSize is how many messages are asked for at once: that many fit into
	// providers.MaxAnswer.
	pageSize = 20
	// maxPages bounds the messages to one customer that are looked through. Only
	// those since the doubt began count, which are few.
	maxPages = 5
	// clockSkew is by how much Twilio's clock may be behind ours.
	clockSkew = time.Minute
)

// Ask looks for o among the messages that Twilio has to its customer since the
// doubt began. Two lists are asked for: the one of that day and later, which is
// complete but may leave out what Twilio has not sent yet, and the newest
// ones, sent or not.
//
// A free text is known by its words. Of a template Twilio shows the body and
// not the button's address, so it is known by the order number in it; and
// while a message of unknown outcome waits, no other of ours goes to the same
// customer. A message whose text Twilio has not kept could be any: then nobody
// knows.
func (p *Provider) Ask(ctx context.Context, o conversations.Outbound) (conversations.Sent, bool, error) {
	to, err := p.recipient(o.To)
	switch {
	case err != nil:
		return conversations.Sent{}, false, err
	case o.Doubt == nil:
		return conversations.Sent{}, false, errors.New("ask: it is not said since when the message is in doubt")
	}
	since := o.Doubt.Add(-clockSkew).UTC()
	size := strconv.Itoa(pageSize)
	lists := []messageList{
		{url.Values{"To": {to}, "DateSent>": {since.Format(time.DateOnly)}, "PageSize": {size}}, maxPages, true},
		{url.Values{"To": {to}, "PageSize": {size}}, 1, false},
	}
	doubtful := false
	for _, list := range lists {
		sent, maybe, err := p.look(ctx, list, o, since)
		switch {
		case err != nil:
			return conversations.Sent{}, false, err
		case sent != nil:
			return *sent, true, nil
		}
		doubtful = doubtful || maybe
	}
	if doubtful {
		return conversations.Sent{}, false, errors.New("ask: Twilio has a message whose text it does not show")
	}
	return conversations.Sent{}, false, nil
}

// messageList is a list of messages to look through, newest first.
type messageList struct {
	query url.Values
	pages int  // most pages of it
	whole bool // to its end, or nothing is known
}

// look goes through one list of messages. doubtful says that one of them could
// be o.
func (p *Provider) look(ctx context.Context, list messageList, o conversations.Outbound, since time.Time) (sent *conversations.Sent, doubtful bool, err error) {
	query := list.query
	for range list.pages {
		var messages []resource
		if messages, query, err = p.list(ctx, query); err != nil {
			return nil, false, err
		}
		for i := range messages {
			switch p.match(&messages[i], o, since) {
			case matchYes:
				s := p.sent(&messages[i])
				if s.Status == conversations.DeliveryFailed {
					// It reached Twilio; why it failed is in the callback of that message.
					s.Status = conversations.DeliveryAccepted
				}
				return &s, false, nil
			case matchMaybe:
				doubtful = true
			}
		}
		if query == nil {
			return nil, doubtful, nil
		}
	}
	if list.whole {
		return nil, false, errors.New("ask: there are too many messages to look through")
	}
	return nil, doubtful, nil
}

// list asks for one page of messages, and returns the query of the next one.
func (p *Provider) list(ctx context.Context, query url.Values) (messages []resource, next url.Values, err error) {
	var page struct {
		Messages *[]json.RawMessage `json:"messages"`
		Next     string             `json:"next_page_uri"`
	}
	if err := p.get(ctx, p.messagesURL+"?"+query.Encode(), &page); err != nil {
		return nil, nil, fmt.Errorf("ask: %w", err)
	}
	if page.Messages == nil {
		return nil, nil, errors.New("ask: the answer holds no list of messages")
	}
	for _, raw := range *page.Messages {
		r, ok := readResource(raw)
		if !ok {
			return nil, nil, errors.New("ask: a message in the list cannot be read")
		}
		messages = append(messages, *r)
	}
	if page.Next == "" {
		return messages, nil, nil
	}
	// Only the query is taken: the credentials go nowhere that was not configured.
	_, raw, _ := strings.Cut(page.Next, "?")
	if next, err = url.ParseQuery(raw); err != nil || len(next) == 0 {
		return nil, nil, errors.New("ask: the address of the next page cannot be read")
	}
	return messages, next, nil
}

// matching tells whether a message in Twilio's list is the one in doubt.
type matching int

const (
	matchNo matching = iota
	matchMaybe
	matchYes
)

func (p *Provider) match(r *resource, o conversations.Outbound, since time.Time) matching {
	made, err := time.Parse(time.RFC1123Z, r.DateCreated)
	ours := p.from != "" && r.From == p.from || p.serviceSID != "" && r.Service == p.serviceSID
	body := strings.TrimSpace(r.Body)
	switch {
	case !ours, r.SID == "", len(r.SID) > maxID, !strings.HasPrefix(r.Direction, "outbound"), err == nil && made.Before(since):
		return matchNo
	case err != nil, body == "":
		return matchMaybe
	case p.channel == conversations.WhatsApp && o.Template:
		if order := o.Parameters.Order; order != "" && strings.Contains(body, order) {
			return matchYes
		}
		return matchMaybe
	case body == strings.TrimSpace(p.text(o)), o.Parameters.Link != "" && strings.Contains(body, o.Parameters.Link):
		return matchYes
	}
	return matchNo
}

// statusError is an answer that is none: its status, and Twilio's code if it
// told one.
type statusError struct {
	status int
	code   string
}

// Error tells the status and the code.
func (e *statusError) Error() string {
	if e.code != "" {
		return fmt.Sprintf("Twilio answers with status %d and code %s", e.status, e.code)
	}
	return fmt.Sprintf("Twilio answers with status %d", e.status)
}

// get reads the JSON object at an address. The error is a *statusError when
// Twilio refused.
func (p *Provider) get(ctx context.Context, address string, into any) error {
	return p.getAs(ctx, address, p.user, p.password, into)
}

func (p *Provider) getAs(ctx context.Context, address, user, password string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errors.New("the configured address makes no address")
	}
	return p.do(req, user, password, into)
}

// do makes a call whose answer is a JSON object. What Twilio says in words is
// dropped.
func (p *Provider) do(req *http.Request, user, password string, into any) error {
	a, err := p.callAs(req, user, password)
	var f *providers.Failure
	if errors.As(err, &f) {
		err = f.Err // the rest is about a message
	}
	if err != nil {
		return err
	}
	if !a.OK() {
		e := &statusError{status: a.Status}
		if r, ok := readResource(a.Body); ok {
			e.code = code(string(r.Code))
		}
		return e
	}
	if a.Cut || json.Unmarshal(a.Body, into) != nil {
		return errors.New("the answer of Twilio answers cannot be read")
	}
	return nil
}
