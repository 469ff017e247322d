package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"paythread/conversations"
	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/meta"
	"paythread/simulator/twilio"
)

// The events of the storm: each customer of the first kind has a payment
// request, is answered by an agent, writes texts and gets a message whose
// statuses are reported; each of the second kind writes one word, which the
// bot answers.
const (
	stormAsked   = 400
	stormTexts   = 20
	stormFresh   = 800
	stormEvents  = stormAsked*(stormTexts+stormReports) + stormFresh
	stormReports = 3 // sent, delivered, read
)

// TestTenThousandEvents gives two gateways 10,000 events of two providers in
// random order, in batches of any size, a tenth of them twice, with elements
// between them that cannot be read. Each that can be takes effect exactly once.
func TestTenThousandEvents(t *testing.T) {
	t.Parallel()
	if stormEvents != 10_000 {
		t.Fatalf("the storm has %d events", stormEvents)
	}
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) {
		o.Pace = time.Hour // the networks report nothing by themselves
		o.Env["MERCHANTS_ACME_SENDERS_ACME_WA_PER_SECOND"], o.Env["MERCHANTS_ACME_SENDERS_ACME_SMS_PER_SECOND"] = "10000", "10000"
		o.World = func(c *simulator.Config, _ *cybersource.Config) { c.Meta.MessagesPerSecond, c.Meta.PairBurst = -1, -1 }
	})
	s.startGateway()
	s.startGateway()
	st := &storm{rig: s, r: rand.New(rand.NewPCG(11, 22))}
	st.connect()
	st.askAll()
	st.prepare()
	st.rage()
	s.awaitIdle()
	st.checkAsked()
	st.checkFresh()
}

// storm is what is sent, and what must have come of it.
type storm struct {
	*rig
	r     *rand.Rand
	store *conversations.Store
	asked []*conversations.PaymentRequest
	wa    []string     // elements of Meta's batches: the value of one change
	sms   []url.Values // forms of Twilio
}

// connect opens the store beside the gateways, to look at what they made.
func (s *storm) connect() { s.store = s.openStore() }

func stormPhone(i int) string { return fmt.Sprintf("+2782%07d", 1_000_000+i) }

func stormChannel(i int) string { return []string{"whatsapp", "sms"}[i%2] }

// askAll asks the first customers for a payment, waits until the providers
// have taken the messages, and takes the conversations over.
func (s *storm) askAll() {
	s.t.Helper()
	var all sync.WaitGroup
	ids := make([]string, stormAsked)
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < stormAsked; i += 8 {
				id, err := s.ask(asked{Order: fmt.Sprint("storm-", i), Phone: stormPhone(i), Channel: stormChannel(i), Amount: "149.00"})
				if err != nil {
					s.t.Errorf("ask %d: %v", i, err)
				}
				ids[i] = id
			}
		})
	}
	all.Wait()
	s.asked = make([]*conversations.PaymentRequest, stormAsked)
	for i, id := range ids {
		s.await("the provider has taken message "+strconv.Itoa(i), func() bool {
			r, err := s.store.Request(s.t.Context(), id)
			s.must(err)
			s.asked[i] = r
			return s.message(r).ProviderID != ""
		})
		_, err := s.store.Apply(s.t.Context(), s.asked[i].ContactID, conversations.TakenOver{Agent: "zoe"}, conversations.Once{})
		s.must(err)
	}
}

func (s *storm) message(r *conversations.PaymentRequest) *conversations.Message {
	s.t.Helper()
	found, err := s.store.Messages(s.t.Context(), r.ContactID, r.Messages[:1])
	s.must(err)
	if len(found) != 1 {
		s.t.Fatalf("%s has %d messages", r.ID, len(found))
	}
	return found[0]
}

// prepare makes every event, and then a tenth of them again.
func (s *storm) prepare() {
	for i, r := range s.asked {
		m := s.message(r)
		for n := range stormTexts {
			s.text(i, fmt.Sprintf("in-%d-%d", i, n), fmt.Sprintf("word %d of %d", n, i))
		}
		for n, status := range []string{"sent", "delivered", "read"} {
			s.status(i, m, status, time.Now().Add(time.Duration(n)*time.Second))
		}
	}
	for i := stormAsked; i < stormAsked+stormFresh; i++ {
		s.text(i, fmt.Sprintf("in-%d", i), "help")
	}
	if n := len(s.wa) + len(s.sms); n != stormEvents {
		s.t.Fatalf("%d events", n)
	}
	for range stormEvents / 20 {
		s.wa = append(s.wa, s.wa[s.r.IntN(len(s.wa))])
		s.sms = append(s.sms, s.sms[s.r.IntN(len(s.sms))])
	}
	for range 100 {
		s.wa = append(s.wa, s.spoilt())
		s.sms = append(s.sms, url.Values{"AccountSid": {demoTwilio.SID}, "MessageSid": {""}, "From": {"nobody"}, "To": {demoTwilioPhone}, "Body": {"x"}})
	}
	s.r.Shuffle(len(s.wa), func(i, j int) { s.wa[i], s.wa[j] = s.wa[j], s.wa[i] })
	s.r.Shuffle(len(s.sms), func(i, j int) { s.sms[i], s.sms[j] = s.sms[j], s.sms[i] })
}

// text adds what a customer writes.
func (s *storm) text(i int, id, text string) {
	digits := stormPhone(i)[1:]
	if stormChannel(i) == "sms" {
		s.sms = append(s.sms, url.Values{
			"AccountSid": {demoTwilio.SID}, "MessageSid": {"SM" + id}, "From": {"+" + digits}, "To": {demoTwilioPhone}, "Body": {text},
			"NumMedia": {"0"}, "SmsStatus": {"received"}, "FromCity": {""},
		})
		return
	}
	s.wa = append(s.wa, fmt.Sprintf(`{"messaging_product":"whatsapp","metadata":{"display_phone_number":"27600000001","phone_number_id":%q},
		"contacts":[{"profile":{"name":"Zoë"},"wa_id":%q}],
		"messages":[{"from":%q,"id":"wamid.%s","timestamp":"%d","type":"text","text":{"body":%q}}]}`,
		demoMeta.PhoneNumberID, digits, digits, id, time.Now().Unix(), text))
}

// status adds what became of a message.
func (s *storm) status(i int, m *conversations.Message, status string, at time.Time) {
	if stormChannel(i) == "sms" {
		s.sms = append(s.sms, url.Values{
			"AccountSid": {demoTwilio.SID}, "MessageSid": {m.ProviderID}, "MessageStatus": {status}, "SmsStatus": {status},
			"From": {demoTwilioPhone}, "To": {stormPhone(i)}, "ErrorCode": {""},
		})
		return
	}
	s.wa = append(s.wa, fmt.Sprintf(`{"messaging_product":"whatsapp","metadata":{"phone_number_id":%q},"statuses":[{"id":%q,"status":%q,
		"timestamp":"%d","recipient_id":%q,"biz_opaque_callback_data":%q}]}`,
		demoMeta.PhoneNumberID, m.ProviderID, status, at.Unix(), stormPhone(i)[1:], m.ContactID+"."+m.ID))
}

// spoilt is a change with elements that cannot be read.
func (s *storm) spoilt() string {
	return []string{
		`{"messaging_product":"whatsapp","metadata":{"phone_number_id":"` + demoMeta.PhoneNumberID + `"},"messages":[{"from":7,"id":[],"type":{}}]}`,
		`{"metadata":{"phone_number_id":"` + demoMeta.PhoneNumberID + `"},"messages":{"from":"27821000000"}}`,
		`{"metadata":{"phone_number_id":"` + demoMeta.PhoneNumberID + `"},"statuses":[{"status":"sent"},null,"x"]}`,
		`{"metadata":{"phone_number_id":"999"},"messages":[{"from":"27821000000","id":"wamid.foreign","type":"text","text":{"body":"x"}}]}`,
		`[]`, `"text"`, `null`,
	}[s.r.IntN(7)]
}

// rage delivers everything at once from several connections: Meta's changes in
// batches of one to a hundred over some entries, Twilio's forms one by one.
func (s *storm) rage() {
	s.t.Helper()
	batches := make(chan func() error, 64)
	var posting sync.WaitGroup
	for range 8 {
		posting.Go(func() {
			for post := range batches {
				if err := post(); err != nil {
					s.t.Error(err)
				}
			}
		})
	}
	for len(s.wa)+len(s.sms) > 0 {
		if n := min(len(s.sms), 1+s.r.IntN(40)); n > 0 {
			for _, form := range s.sms[:n] {
				batches <- func() error { return s.postForm(form) }
			}
			s.sms = s.sms[n:]
		}
		if n := min(len(s.wa), 1+s.r.IntN(100)); n > 0 {
			body := batchOf(s.wa[:n], 1+s.r.IntN(5))
			batches <- func() error { return s.postBatch(body) }
			if s.r.IntN(10) == 0 {
				batches <- func() error { return s.postBatch(body) } // Meta delivers the whole again
			}
			s.wa = s.wa[n:]
		}
	}
	close(batches)
	posting.Wait()
}

// batchOf makes one delivery of some changes, spread over entries.
func batchOf(changes []string, entries int) []byte {
	var parts []string
	for part := range slices.Chunk(changes, max(1, (len(changes)+entries-1)/entries)) {
		for i, value := range part {
			part[i] = `{"field":"messages","value":` + value + `}`
		}
		parts = append(parts, `{"id":"`+demoMeta.WABAID+`","changes":[`+strings.Join(part, ",")+`]}`)
	}
	return []byte(`{"object":"whatsapp_business_account","entry":[` + strings.Join(parts, ",") + `]}`)
}

// posts makes one call to whichever gateway is next, as a provider would: again
// while it is not answered with 200.
func (s *storm) posts(to, contentType string, header http.Header, body []byte) error {
	for try := 1; ; try++ {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, to, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header = header.Clone()
		req.Header.Set("Content-Type", contentType)
		answer, err := s.agent.Do(req)
		if err != nil {
			return err
		}
		_ = answer.Body.Close() // only the status matters
		if answer.StatusCode == http.StatusOK {
			return nil
		}
		if answer.StatusCode < 500 || try == 50 { // Meta goes on for days
			return fmt.Errorf("a webhook was answered with %d", answer.StatusCode)
		}
	}
}

func (s *storm) postBatch(body []byte) error {
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return err
	}
	signature := "sha256=" + meta.Sign(demoMeta.AppSecret, compact.Bytes())
	return s.posts(s.front.url+"/webhooks/acme-wa", "application/json", http.Header{"X-Hub-Signature-256": {signature}}, compact.Bytes())
}

func (s *storm) postForm(form url.Values) error {
	address := s.front.url + "/webhooks/acme-sms"
	signature := twilio.Sign(demoTwilio.AuthToken, address, form)
	err := s.posts(address, "application/x-www-form-urlencoded", http.Header{"X-Twilio-Signature": {signature}}, []byte(form.Encode()))
	if form.Get("MessageSid") == "" && err != nil {
		return nil // it cannot be read, and is refused: another delivery would not help
	}
	return err
}

// transcriptOf reads all of a conversation.
func (s *rig) transcriptOf(store *conversations.Store, contactID string) []*conversations.Message {
	s.t.Helper()
	var all []*conversations.Message
	for cursor := ""; ; {
		page, next, err := store.Transcript(s.t.Context(), contactID, cursor, 50)
		s.must(err)
		if all = append(all, page...); next == "" {
			return all
		}
		cursor = next
	}
}

// checkAsked: every text stands once in its transcript, unanswered, and every
// status happened once.
func (s *storm) checkAsked() {
	s.t.Helper()
	for i, r := range s.asked {
		var texts []string
		for _, m := range s.transcriptOf(s.store, r.ContactID) {
			if m.Inbound {
				texts = append(texts, m.Text)
			} else if m.Purpose != conversations.PurposePayment {
				s.t.Errorf("customer %d got a message of purpose %s", i, m.Purpose)
			}
		}
		slices.Sort(texts)
		if n := len(slices.Compact(slices.Clone(texts))); len(texts) != stormTexts || n != stormTexts {
			s.t.Errorf("customer %d wrote %d times, %d of them different, want %d", i, len(texts), n, stormTexts)
		}
		if status := s.message(r).Status; status != conversations.DeliveryRead {
			s.t.Errorf("the message of customer %d is %s", i, status)
		}
		log, err := s.store.Events(s.t.Context(), r.ID, 0, 100)
		s.must(err)
		seen := map[string]int{}
		for n, e := range log {
			if seen[e.Type]++; e.Seq != int64(n+1) {
				s.t.Errorf("event %d of customer %d has the number %d", n+1, i, e.Seq)
			}
		}
		if seen["created"] != 1 || seen["read"] != 1 || seen["sent"] > 1 || seen["delivered"] > 1 {
			s.t.Errorf("the log of customer %d has %v", i, seen)
		}
		now, err := s.store.Request(s.t.Context(), r.ID)
		s.must(err)
		for _, milestone := range []conversations.Milestone{conversations.MilestoneSent, conversations.MilestoneDelivered, conversations.MilestoneRead} {
			if _, ok := now.Milestones[milestone]; !ok {
				s.t.Errorf("customer %d has no milestone %s", i, milestone)
			}
		}
	}
}

// checkFresh: every word was answered once, on the phone as in the transcript.
func (s *storm) checkFresh() {
	s.t.Helper()
	for i := stormAsked; i < stormAsked+stormFresh; i++ {
		contact, err := s.store.ContactAt(s.t.Context(), "acme", stormPhone(i))
		s.must(err)
		in, out := 0, 0
		for _, m := range s.transcriptOf(s.store, contact.ID) {
			if m.Inbound {
				in++
			} else {
				out++
			}
		}
		if in != 1 || out != 1 {
			s.t.Errorf("customer %d wrote %d times and was answered %d times", i, in, out)
		}
	}
}
