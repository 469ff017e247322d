package twilio

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// sandboxNumber is Twilio's shared WhatsApp sender for trying things out. It is
// in nobody's list of senders.
const sandboxNumber = whatsAppPrefix + "+14155238886"

// Check asks Twilio whether the sender is set up right: the account and its
// auth token, the API key, the number or WhatsApp sender or messaging service
// and where it sends what customers write, and on WhatsApp the Content
// templates. It only reads.
func (p *Provider) Check(ctx context.Context) []providers.Finding {
	found := []providers.Finding{p.checkAccount(ctx)}
	if found[0].State == providers.FindingWrong {
		return found // everything else would say the same
	}
	if p.user != p.accountSID {
		key := p.checkKey(ctx)
		found = append(found, key)
		if key.State == providers.FindingWrong {
			return found
		}
	}
	// With a service its address counts, unless it leaves that to the number.
	addressAtNumber := true
	if p.serviceSID != "" {
		var more []providers.Finding
		more, addressAtNumber = p.checkService(ctx)
		found = append(found, more...)
	}
	switch {
	case p.from == "":
	case p.channel == conversations.WhatsApp:
		found = append(found, p.checkWhatsAppSender(ctx, addressAtNumber)...)
	default:
		found = append(found, p.checkNumber(ctx, addressAtNumber)...)
	}
	if p.channel == conversations.WhatsApp {
		found = append(found, p.checkContents(ctx)...)
	}
	return found
}

func ok(check, format string, args ...any) providers.Finding {
	return providers.Finding{Check: check, State: providers.FindingOK, Detail: fmt.Sprintf(format, args...)}
}

func warning(check, mend, format string, args ...any) providers.Finding {
	return providers.Finding{Check: check, State: providers.FindingWarning, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

func wrong(check, mend, format string, args ...any) providers.Finding {
	return providers.Finding{Check: check, State: providers.FindingWrong, Detail: fmt.Sprintf(format, args...), Mend: mend}
}

// unanswered is the finding when Twilio could not be asked.
func unanswered(check string, err error) providers.Finding {
	return warning(check, "look at it in Twilio's console, or run the doctor again", "could not be asked: %v", err)
}

// statusOf returns the status of Twilio's refusal, or 0.
func statusOf(err error) int {
	var e *statusError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// checkAccount reads the account with the auth token, whatever messages are
// sent with: the token is what webhooks are signed with.
func (p *Provider) checkAccount(ctx context.Context) providers.Finding {
	const check = "account and auth token"
	var account struct {
		Status string `json:"status"`
		Type   string `json:"type"`
	}
	err := p.getAs(ctx, p.accountURL+".json", p.accountSID, string(p.tokens[0]), &account)
	switch status := statusOf(err); {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return wrong(check, "copy account_sid and auth_token from the account's page in Twilio's console; a sub-account has its own token",
			"Twilio refuses them (%v): nothing can be sent, and no webhook can be verified", err)
	case status == http.StatusNotFound:
		return wrong(check, "copy account_sid from Twilio's console, and see that base_url is right", "there is no such account at base_url")
	case err != nil:
		return wrong(check, "see that base_url is right and can be reached from here", "the account cannot be asked: %v", err)
	case account.Status != "active":
		return wrong(check, "ask Twilio's support why", "the account is %s", providers.Word(account.Status))
	case account.Type == "Trial":
		return warning(check, "upgrade the account", "it is a trial account, which sends to verified numbers only")
	}
	return ok(check, "the account is active and the token is its own")
}

// checkKey tries the API key with a call that every key may make.
func (p *Provider) checkKey(ctx context.Context) providers.Finding {
	const check = "API key"
	var any struct{}
	if err := p.get(ctx, p.messagesURL+"?PageSize=1", &any); err != nil {
		return wrong(check, "make a new key in Twilio's console, in the same account and region, and set api_key_sid and api_key_secret",
			"messages cannot be read with it: %v", err)
	}
	return ok(check, "messages can be read with it")
}

// checkService looks at the messaging service, and tells whether the address
// for what customers write is the number's.
func (p *Provider) checkService(ctx context.Context) (found []providers.Finding, addressAtNumber bool) {
	const check = "messaging service"
	var service struct {
		URL      string `json:"inbound_request_url"`
		Method   string `json:"inbound_method"`
		AtNumber bool   `json:"use_inbound_webhook_on_number"`
	}
	err := p.get(ctx, p.messagingURL+"/v1/Services/"+p.serviceSID, &service)
	switch {
	case statusOf(err) == http.StatusNotFound:
		return []providers.Finding{wrong(check, "copy messaging_service_sid from Twilio's console", "the account has no such service")}, p.from != ""
	case err != nil:
		return []providers.Finding{unanswered(check, err)}, false
	}
	found = []providers.Finding{ok(check, "the account has it")}
	switch {
	case !service.AtNumber:
		return append(found, p.checkAddress("Integration, Incoming Messages, of the service", service.URL, service.Method)), false
	case p.from == "":
		return append(found, warning(inboundCheck, "see that each number in the service sends incoming messages to "+p.inboundURL()+", or choose \"Send a webhook\" in the service",
			"the service leaves it to each of its numbers")), false
	}
	return found, true
}

// checkNumber looks at an SMS sender.
func (p *Provider) checkNumber(ctx context.Context, addressAtNumber bool) []providers.Finding {
	const check = "number"
	type number struct {
		URL          string          `json:"sms_url"`
		Method       string          `json:"sms_method"`
		Application  string          `json:"sms_application_sid"`
		Capabilities map[string]bool `json:"capabilities"`
	}
	var list struct {
		Numbers    []number `json:"incoming_phone_numbers"`
		ShortCodes []number `json:"short_codes"`
	}
	var err error
	switch _, notDigits := strconv.Atoi(p.from); {
	case phoneForm.MatchString(p.from):
		err = p.get(ctx, p.accountURL+"/IncomingPhoneNumbers.json?"+url.Values{"PhoneNumber": {p.from}}.Encode(), &list)
	case notDigits == nil:
		err = p.get(ctx, p.accountURL+"/SMS/ShortCodes.json?"+url.Values{"ShortCode": {p.from}}.Encode(), &list)
	default:
		return []providers.Finding{warning(check, "use a number where customers should be able to answer", "messages come from a name: customers can neither answer nor opt out by an answer")}
	}
	if err != nil {
		return []providers.Finding{unanswered(check, err)}
	}
	all := append(list.Numbers, list.ShortCodes...)
	if len(all) == 0 {
		return []providers.Finding{wrong(check, "set from to one of the active numbers in Twilio's console", "the account does not own the number that is set as from")}
	}
	n := all[0]
	if can, told := n.Capabilities["sms"]; told && !can {
		return []providers.Finding{wrong(check, "choose a number with SMS", "it cannot send SMS")}
	}
	found := []providers.Finding{ok(check, "the account owns it")}
	switch {
	case !addressAtNumber:
		return found
	case n.Application != "":
		return append(found, wrong(inboundCheck, "set \"A message comes in\" of the number to Webhook and "+p.inboundURL(), "an application of Twilio takes what customers write"))
	}
	return append(found, p.checkAddress("\"A message comes in\" of the number", n.URL, n.Method))
}

// checkWhatsAppSender looks at a WhatsApp sender.
func (p *Provider) checkWhatsAppSender(ctx context.Context, addressAtNumber bool) []providers.Finding {
	const check = "WhatsApp sender"
	type sender struct {
		ID      string `json:"sender_id"`
		Status  string `json:"status"`
		Webhook struct {
			URL    string `json:"callback_url"`
			Method string `json:"callback_method"`
		} `json:"webhook"`
	}
	if p.from == sandboxNumber {
		return []providers.Finding{warning(check, "register a WhatsApp sender before you go live; until then set \"When a message comes in\" on the sandbox's page to "+p.inboundURL(),
			"it is Twilio's sandbox, which only reaches those who joined it")}
	}
	query := url.Values{"Channel": {"whatsapp"}, "PageSize": {"50"}}
	for range maxPages {
		var list struct {
			Senders *[]sender `json:"senders"`
			Meta    struct {
				Next string `json:"next_page_url"`
			} `json:"meta"`
		}
		err := p.get(ctx, p.messagingURL+"/v2/Channels/Senders?"+query.Encode(), &list)
		if err == nil && list.Senders == nil {
			err = errors.New("the answer holds no list of senders")
		}
		if err != nil {
			return []providers.Finding{unanswered(check, err)}
		}
		if i := slices.IndexFunc(*list.Senders, func(s sender) bool { return s.ID == p.from }); i >= 0 {
			s := (*list.Senders)[i]
			found := []providers.Finding{senderStatus(check, s.Status)}
			if addressAtNumber {
				found = append(found, p.checkAddress("the webhook of the WhatsApp sender", s.Webhook.URL, s.Webhook.Method))
			}
			return found
		}
		_, raw, _ := strings.Cut(list.Meta.Next, "?")
		if query, err = url.ParseQuery(raw); err != nil || len(query) == 0 {
			return []providers.Finding{wrong(check, "set from to one of the WhatsApp senders in Twilio's console, or register the number there", "the account has no WhatsApp sender with the number that is set as from")}
		}
	}
	return []providers.Finding{warning(check, "look for it in Twilio's console", "the account has more WhatsApp senders than are looked through here")}
}

func senderStatus(check, status string) providers.Finding {
	const mend = "see the sender's page in Twilio's console"
	switch status {
	case "ONLINE", "ONLINE:UPDATING":
		return ok(check, "the account has it, and it is online")
	case "OFFLINE":
		return wrong(check, mend, "it is offline")
	}
	return warning(check, mend, "it is not online yet: %s", providers.Word(status))
}

const inboundCheck = "address for incoming messages"

// inboundURL is what the merchant must enter at Twilio.
func (p *Provider) inboundURL() string {
	u := *p.callback
	u.Fragment = ""
	return u.String() + Overrides
}

// checkAddress compares an address at Twilio with the sender's own, which may
// be followed by its secret. What stands behind "#" is not part of it: without
// it Twilio does not retry, and the overrides may also be set for the whole
// account by a rule. Addresses for status callbacks need no look: each message
// brings one of its own, which goes before the number's and the service's.
func (p *Provider) checkAddress(place, address, method string) providers.Finding {
	mend := "set " + place + " to " + p.inboundURL() + " with POST"
	bare, fragment, _ := strings.Cut(address, "#")
	ours, _, _ := strings.Cut(p.inboundURL(), "#")
	path, _, _ := strings.Cut(bare, "?")
	switch {
	case address == "":
		return wrong(inboundCheck, mend, "none is set: what customers write is lost")
	case path != ours && !strings.HasPrefix(path, ours+"/"):
		return wrong(inboundCheck, mend, "it is another one: what customers write does not come here")
	case method != http.MethodPost && method != http.MethodGet && method != "":
		return wrong(inboundCheck, mend, "it is called with %s", providers.Word(method))
	}
	overrides, err := url.ParseQuery(fragment)
	policy := strings.Split(overrides.Get("rp"), ",")
	if err != nil || overrides.Get("rc") == "0" || !slices.Contains(policy, "5xx") && !slices.Contains(policy, "all") {
		return warning(inboundCheck, "set "+place+" to "+p.inboundURL()+" (with the end, from #), or make such a rule for the account's webhooks",
			"it is right, but Twilio does not try again when it is answered with a fault or too late: a message is lost in each restart")
	}
	return ok(inboundCheck, "it is the sender's own, and Twilio tries again")
}

// checkContents looks at every Content template that the settings name.
func (p *Provider) checkContents(ctx context.Context) []providers.Finding {
	var found []providers.Finding
	for _, setting := range contentSettings {
		list := p.contents[setting.purpose]
		if len(list) == 0 {
			found = append(found, warning(setting.name, "have a template approved and set "+setting.name+"; docs/providers/twilio.md has its text",
				"no template is set: a message of this kind cannot reach a customer who has not written for 24 hours"))
		}
		for _, c := range list {
			found = append(found, p.checkContent(ctx, setting, c))
		}
	}
	return found
}

func (p *Provider) checkContent(ctx context.Context, setting contentSetting, c providers.Translation) providers.Finding {
	check := setting.name + " " + c.Language
	var template struct {
		Language  string         `json:"language"`
		Variables map[string]any `json:"variables"`
	}
	err := p.get(ctx, p.contentURL+"/v1/Content/"+c.Template, &template)
	switch {
	case statusOf(err) == http.StatusNotFound:
		return wrong(check, "copy its SID (HX...) from Twilio's console", "the account has no such template")
	case err != nil:
		return unanswered(check, err)
	}
	given := len(setting.variables(conversations.Parameters{}))
	for _, name := range slices.Sorted(maps.Keys(template.Variables)) {
		if n, err := strconv.Atoi(name); err != nil || n < 1 || n > given {
			return wrong(check, "use the text in docs/providers/twilio.md, which says what each variable is", "it has a variable {{%s}} that is not filled in", providers.Word(name))
		}
	}
	var approval struct {
		WhatsApp struct {
			Status string          `json:"status"`
			Reason providers.Loose `json:"rejection_reason"`
		} `json:"whatsapp"`
	}
	if err := p.get(ctx, p.contentURL+"/v1/Content/"+c.Template+"/ApprovalRequests", &approval); err != nil {
		return unanswered(check, fmt.Errorf("its approval: %w", err))
	}
	switch status := strings.ToLower(approval.WhatsApp.Status); status {
	case "approved":
	case "", "unsubmitted":
		return wrong(check, "submit it for WhatsApp approval in Twilio's console", "it was not submitted to WhatsApp")
	case "received", "pending":
		return warning(check, "wait for WhatsApp, which takes up to two days", "it is not approved yet: %s", status)
	default:
		return wrong(check, "see why in Twilio's console, and have another one approved", "WhatsApp does not let it be sent: %s", providers.Word(status))
	}
	if !providers.SameLanguage(template.Language, c.Language) {
		return warning(check, "name it for the language that it has", "it is approved, and in another language: %s", providers.Word(template.Language))
	}
	return ok(check, "it is approved")
}
