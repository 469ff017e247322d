// Package simulator is the world outside Paythread, for the demo, the tests and
// anyone who integrates: the companies it talks to, over their own wire
// protocols, and the customers' phones. It checks what they check, refuses what
// they refuse, and can be told to misbehave. It imports nothing of Paythread's
// and shares no types with it, so that an adapter's mistake shows here instead of
// cancelling out.
//
// A World serves everything from one handler:
//
//	/meta/...       the Graph API (package meta)
//	/twilio/...     Twilio's API (package twilio)
//	/clickatell/... Clickatell's APIs (package clickatell)
//	/phone/{e164}   a customer's phone, as a page
//	/phones/...     the phones' control API
//	/faults         what goes wrong (package faults)
//	/calls          what the companies were asked
//	/               a start page
//
// More companies are plugged in as Parts, which put their own routes beside
// these.
//
// # Control API
//
// Bodies are JSON. Bad input is answered with 400 and a problem document
// (application/problem+json) whose field member names what is wrong; 409 says
// that the phone's state forbids the wish. {e164} may lack its +.
//
//	GET    /phones                      the phones used so far
//	GET    /phones/{e164}/messages      what the phone received and sent, newest last
//	POST   /phones/{e164}/messages      {"channel","text"[,"to"]}, or {"button":"id or title"[,"channel","messageId"]}
//	POST   /phones/{e164}/read          {["channel","from"]}: the customer reads
//	POST   /phones/{e164}/block         {"channel","on"}
//	POST   /phones/{e164}/unreachable   {"on"}: the phone is switched off
//	POST   /phones/{e164}/whatsapp      {"on"[,"name","username","hideNumber","waId"]}
//	GET    /faults                      the rules in force, with their counts
//	PUT    /faults                      an array of rules that replaces them
//	DELETE /faults                      no rules; whatever is held goes on
//	POST   /faults/{id}/release         what one rule holds goes on
//	GET    /calls                       every call a company received, oldest first; ?call=prefix
//	POST   /meta/verify                 Meta makes its handshake with every webhook
//	POST   /meta/webhooks/{pnid}        any JSON, posted to that number's webhook as Meta would write and sign it
//	POST   /clickatell/webhooks/{id}    any JSON, posted to that integration's callback address; ?to=status for the other one
//
// The companies' packages describe the control calls that are theirs alone.
package simulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"paythread/simulator/clickatell"
	"paythread/simulator/faults"
	"paythread/simulator/meta"
	"paythread/simulator/twilio"
)

// Link is a line of the start page.
type Link struct {
	Name string
	URL  string
	Text string // what it is, in a few words; may be empty
}

// Registrar is one more company: it puts its routes on the world's mux. Those
// that have a Close method are closed with the world.
type Registrar interface {
	Register(mux *http.ServeMux)
}

// Config says what the world holds. Its zero value is a world with phones and
// without businesses.
type Config struct {
	PublicURL  string            // this server's own address, such as http://localhost:8090
	Meta       meta.Config       // Now and Log are taken from here when unset
	Twilio     twilio.Config     // the same
	Clickatell clickatell.Config // the same
	Title      string            // of the start page; empty: "The world outside"
	Steps      []Link            // what to try, in order, first on the start page; a step may have no URL
	Links      []Link            // where else to go
	// Faults is the set that the parts were made with; the world makes one when
	// it is nil.
	Faults *faults.Set
	Parts  []Registrar             // more companies, such as a payment platform
	Extra  map[string]http.Handler // more handlers, by ServeMux pattern, such as "/oms/"

	Now func() time.Time
	Log *slog.Logger
}

// World is the world outside. Its fields are for tests in Go; over HTTP the
// control API does the same.
type World struct {
	Phones     *Phones
	Faults     *faults.Set
	Meta       *meta.Simulator
	Twilio     *twilio.Simulator
	Clickatell *clickatell.Simulator

	cfg     Config
	mux     *http.ServeMux
	closing context.Context // ends the pages' streams
	close   func()
}

// New returns a running world, or everything that is wrong with cfg.
func New(cfg Config) (*World, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Faults = cmp.Or(cfg.Faults, faults.New())
	if cfg.Meta.Now == nil {
		cfg.Meta.Now = cfg.Now
	}
	cfg.Meta.Log = cmp.Or(cfg.Meta.Log, cfg.Log)
	if cfg.Twilio.Now == nil {
		cfg.Twilio.Now = cfg.Now
	}
	cfg.Twilio.Log = cmp.Or(cfg.Twilio.Log, cfg.Log)
	if cfg.Clickatell.Now == nil {
		cfg.Clickatell.Now = cfg.Now
	}
	cfg.Clickatell.Log = cmp.Or(cfg.Clickatell.Log, cfg.Log)

	w := &World{Phones: newPhones(cfg.Now), Faults: cfg.Faults, cfg: cfg, mux: http.NewServeMux()}
	var errs []error
	if u, err := url.Parse(cfg.PublicURL); cfg.PublicURL != "" && (err != nil || u.Host == "") {
		errs = append(errs, errors.New("simulator: PublicURL is not an address"))
	}
	asMeta, asTwilio, asClickatell := &onMeta{Phones: w.Phones}, &onTwilio{Phones: w.Phones}, &onClickatell{Phones: w.Phones}
	var err error
	w.Meta, err = meta.New(cfg.Meta, cfg.Faults, asMeta)
	errs = append(errs, err)
	w.Twilio, err = twilio.New(cfg.Twilio, cfg.Faults, asTwilio)
	errs = append(errs, err)
	w.Clickatell, err = clickatell.New(cfg.Clickatell, cfg.Faults, asClickatell)
	errs = append(errs, err)
	asMeta.meta, asTwilio.twilio, asClickatell.clickatell = w.Meta, w.Twilio, w.Clickatell
	if w.Meta != nil && w.Twilio != nil && w.Clickatell != nil {
		errs = append(errs, w.connect(asMeta, asTwilio, asClickatell))
	}
	if err := errors.Join(errs...); err != nil {
		w.closeCompanies()
		return nil, err
	}
	var cancel context.CancelFunc
	w.closing, cancel = context.WithCancel(context.Background())
	w.close = sync.OnceFunc(func() { w.shut(cancel) })
	w.routes()
	return w, nil
}

// connect tells the phones which business numbers there are.
func (w *World) connect(asMeta *onMeta, asTwilio *onTwilio, asClickatell *onClickatell) error {
	p := w.Phones
	p.carriers = []carrier{asMeta, asTwilio, asClickatell}
	for _, number := range w.Meta.Numbers() {
		p.lines = append(p.lines, line{WhatsApp, number, cmp.Or(w.Meta.Name(number), number), asMeta})
	}
	for _, n := range w.Twilio.Numbers() {
		p.lines = append(p.lines, line{n.Channel, n.E164, cmp.Or(n.Name, n.E164), asTwilio})
	}
	for _, n := range w.Clickatell.Numbers() {
		p.lines = append(p.lines, line{n.Channel, n.E164, cmp.Or(n.Name, n.E164), asClickatell})
	}
	seen := map[[2]string]bool{}
	for _, l := range p.lines {
		key := [2]string{l.channel, l.number}
		if seen[key] {
			return errLineTwice
		}
		seen[key] = true
	}
	return nil
}

func (w *World) routes() {
	w.Meta.Register(w.mux)
	w.Twilio.Register(w.mux)
	w.Clickatell.Register(w.mux)
	for _, part := range w.cfg.Parts {
		part.Register(w.mux)
	}
	for pattern, h := range w.cfg.Extra {
		w.mux.Handle(pattern, h)
	}
	w.control()
	w.pages()
}

// Handler serves the whole world.
func (w *World) Handler() http.Handler { return w.mux }

// Close ends webhooks, held calls and page streams, waits for the webhooks, and
// closes the parts that can be closed. A server in front should be shut down
// after it: its requests end then. A second call does nothing.
func (w *World) Close() { w.close() }

func (w *World) shut(cancel context.CancelFunc) {
	cancel()
	w.Faults.Clear()
	w.closeCompanies()
	for _, part := range w.cfg.Parts {
		switch c := part.(type) {
		case interface{ Close() }:
			c.Close()
		case interface{ Close() error }:
			if err := c.Close(); err != nil {
				w.cfg.Log.Warn("a simulated company did not close", "part", fmt.Sprintf("%T", part), "error", err)
			}
		}
	}
}

// closeCompanies closes those that could be made.
func (w *World) closeCompanies() {
	if w.Meta != nil {
		w.Meta.Close()
	}
	if w.Twilio != nil {
		w.Twilio.Close()
	}
	if w.Clickatell != nil {
		w.Clickatell.Close()
	}
}

// phoneLink is the page of one phone, in a link.
func (w *World) phoneLink(e164 string) string {
	return strings.TrimSuffix(w.cfg.PublicURL, "/") + "/phone/" + url.PathEscape(e164)
}
