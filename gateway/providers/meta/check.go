package meta

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// Check asks Meta whether the number, the account and the templates are set up
// as they are used here. It only reads. What Meta does not tell, or tells in
// another form than documented, is passed over or is a warning.
func (p *Provider) Check(ctx context.Context) []providers.Finding {
	c := &checkup{p: p}
	if !c.number(ctx) {
		return c.findings // without a token or a number there is nothing to ask
	}
	switch {
	case p.wabaID == "":
		c.warn("account", "waba_id is not set, so the account's subscription and templates cannot be looked at.", "Set waba_id to the id of the WhatsApp Business Account that has the number.")
	case c.account(ctx):
		c.subscription(ctx)
		c.templates(ctx)
	}
	c.address()
	return c.findings
}

// checkup collects findings.
type checkup struct {
	p        *Provider
	findings []providers.Finding
	webhook  string // the address that webhooks about the number go to, as far as Meta told
}

func (c *checkup) ok(check, detail string) {
	c.findings = append(c.findings, providers.Finding{Check: check, State: providers.FindingOK, Detail: detail})
}

func (c *checkup) warn(check, detail, mend string) {
	c.findings = append(c.findings, providers.Finding{Check: check, State: providers.FindingWarning, Detail: detail, Mend: mend})
}

func (c *checkup) wrong(check, detail, mend string) {
	c.findings = append(c.findings, providers.Finding{Check: check, State: providers.FindingWrong, Detail: detail, Mend: mend})
}

// refused tells of a question that Meta did not answer. mend is what to do when
// Meta knows no such thing, or not for this token.
func (c *checkup) refused(check string, err error, mend string) {
	var f *providers.Failure
	if !errors.As(err, &f) {
		f = &providers.Failure{Reason: conversations.FailureUnknown}
	}
	said := "Meta refused the question"
	if f.Code != "" {
		said += " (code " + f.Code + ")"
	}
	switch {
	case f.Code == "":
		c.warn(check, "Meta could not be asked: there was no answer.", "Check base_url, the network and the proxy, and run this again.")
	case f.Reason == conversations.FailureAuth:
		c.warn(check, said+": the token may not read this.", "Give the system user's token whatsapp_business_management as well.")
	case f.Reason == conversations.FailureRate, f.Reason == conversations.FailureProviderError:
		c.warn(check, said+" for now.", "Run this again in some minutes.")
	default:
		c.wrong(check, said+".", mend)
	}
}

// get reads one node or edge of the Graph API. The error is a
// *providers.Failure.
func (c *checkup) get(ctx context.Context, path string, query url.Values, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.p.graphURL+"/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return providers.Refuse(conversations.FailureSenderConfig, "base_url makes no address")
	}
	answer, err := c.p.call(req)
	if err != nil {
		return err
	}
	if _, err := readGraph(answer); err != nil {
		return err
	}
	if !answer.OK() || answer.Cut {
		return providers.StatusFailure(answer, errAnswer)
	}
	var member *json.UnmarshalTypeError
	if err := json.Unmarshal(answer.Body, into); err != nil && !errors.As(err, &member) {
		return providers.StatusFailure(answer, errAnswer)
	}
	return nil
}

// fields reads a node or edge with the fields that are wished for, and with the
// few that are needed if this version of the API does not know one of them.
func (c *checkup) fields(ctx context.Context, path string, query url.Values, wished, needed string, into any) error {
	if wished != "" {
		query.Set("fields", wished)
	}
	err := c.get(ctx, path, query, into)
	var f *providers.Failure
	if errors.As(err, &f) && f.Code == "100" && needed != wished {
		query.Set("fields", needed)
		err = c.get(ctx, path, query, into)
	}
	return err
}

// edge is one page of a list.
type edge[T any] struct {
	Data   []T `json:"data"`
	Paging struct {
		Cursors struct {
			After string `json:"after"`
		} `json:"cursors"`
		Next string `json:"next"`
	} `json:"paging"`
}

// mostPages bounds how far a list is read. The answers' sizes are bounded, so
// the pages are small.
const mostPages = 20

// list reads an edge from its first page to its last.
func list[T any](ctx context.Context, c *checkup, path string, query url.Values, wished, needed string) ([]T, error) {
	var all []T
	for range mostPages {
		var page edge[T]
		if err := c.fields(ctx, path, query, wished, needed, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Data...)
		if page.Paging.Next == "" || page.Paging.Cursors.After == "" {
			break
		}
		query.Set("after", page.Paging.Cursors.After)
	}
	return all, nil
}

// phoneNumber is the node of a number. Every member may be missing.
type phoneNumber struct {
	Display      string `json:"display_phone_number"`
	Name         string `json:"verified_name"`
	NameStatus   string `json:"name_status"`
	Quality      string `json:"quality_rating"`
	Status       string `json:"status"`
	PlatformType string `json:"platform_type"`
	AccountMode  string `json:"account_mode"`
	Throughput   struct {
		Level string `json:"level"`
	} `json:"throughput"`
	Health struct {
		CanSend  string `json:"can_send_message"`
		Entities []struct {
			Type    string `json:"entity_type"`
			CanSend string `json:"can_send_message"`
			Errors  []struct {
				Code providers.Loose `json:"error_code"`
			} `json:"errors"`
		} `json:"entities"`
	} `json:"health_status"`
	Webhook struct {
		Number  string `json:"phone_number"`
		Account string `json:"whatsapp_business_account"`
		App     string `json:"application"`
	} `json:"webhook_configuration"`
}

const (
	numberNeeded = "id,display_phone_number,verified_name,quality_rating"
	numberWished = numberNeeded + ",name_status,status,platform_type,account_mode,throughput,health_status,webhook_configuration"
)

// number looks at token and number. It is false when no further question makes
// sense.
func (c *checkup) number(ctx context.Context) bool {
	var n phoneNumber
	if err := c.fields(ctx, url.PathEscape(c.p.numberID), url.Values{}, numberWished, numberNeeded, &n); err != nil {
		c.noNumber(err)
		return false
	}
	c.ok("access token", "Meta takes it, and it may read the number.")
	c.numberState(&n)
	c.health(&n)
	for _, address := range []string{n.Webhook.Number, n.Webhook.Account, n.Webhook.App} { // the nearest one holds
		if address != "" {
			c.webhook = address
			break
		}
	}
	return true
}

func (c *checkup) noNumber(err error) {
	var f *providers.Failure
	switch errors.As(err, &f); {
	case f == nil || f.Code == "":
		c.wrong("access token", "Meta could not be reached: there was no answer.", "Check base_url, the network and the proxy.")
	case f.Code == "190" || f.Code == "104" || f.Code == "0" || f.Code == "http_401":
		c.wrong("access token", "Meta refused it (code "+f.Code+"): it is wrong, expired or revoked.",
			"Make a token for a system user of the business, with whatsapp_business_messaging and whatsapp_business_management, that does not expire, and set access_token.")
	case f.Reason == conversations.FailureAuth:
		c.wrong("access token", "It lacks a permission (code "+f.Code+").",
			"Assign the WhatsApp account to the system user with full control, and make a token with whatsapp_business_messaging and whatsapp_business_management.")
	case f.Reason == conversations.FailureRate, f.Reason == conversations.FailureProviderError:
		c.warn("access token", "Meta refused the question for now (code "+f.Code+").", "Run this again in some minutes.")
	case f.Reason == conversations.FailureAccount:
		c.wrong("account", "It is restricted (code "+f.Code+").", "Look at the account in WhatsApp Manager and appeal there.")
	default:
		c.wrong("number", "Meta knows no number with this phone_number_id, or not for this token (code "+f.Code+").",
			"Set phone_number_id to the id that WhatsApp Manager shows beside the number, not to the number itself, and api_version to a version that is still served.")
	}
}

// numberStates are the words of a number's status.
var numberStates = map[string]providers.FindingState{
	"CONNECTED":    providers.FindingOK,
	"FLAGGED":      providers.FindingWarning,
	"RATE_LIMITED": providers.FindingWarning,
	"PENDING":      providers.FindingWrong,
	"UNVERIFIED":   providers.FindingWrong,
	"DISCONNECTED": providers.FindingWrong,
	"MIGRATED":     providers.FindingWrong,
	"RESTRICTED":   providers.FindingWrong,
	"BANNED":       providers.FindingWrong,
	"DELETED":      providers.FindingWrong,
}

func (c *checkup) numberState(n *phoneNumber) {
	const check = "number"
	before := len(c.findings)
	shown, ok := providers.Phone(n.Display)
	if ok && c.p.number != "" && shown.Value != c.p.number {
		c.wrong(check, "phone_number_id is of another number, ending in "+lastDigits(shown.Value)+".", "Set phone_number and phone_number_id to the same number.")
	}
	if n.Status != "" {
		mend := "Look at the number in WhatsApp Manager; register it with POST /{phone_number_id}/register if it never was."
		switch numberStates[n.Status] {
		case providers.FindingOK:
		case providers.FindingWrong:
			c.wrong(check, "Its status is "+word(n.Status)+": it cannot send.", mend)
		default:
			c.warn(check, "Its status is "+word(n.Status)+".", mend)
		}
	}
	if n.PlatformType != "" && n.PlatformType != "CLOUD_API" {
		c.wrong(check, "It is not registered with the Cloud API ("+word(n.PlatformType)+").", "Register it with POST /{phone_number_id}/register.")
	}
	switch n.NameStatus {
	case "DECLINED", "EXPIRED", "NONE", "PENDING_REVIEW":
		if n.AccountMode != "SANDBOX" { // a test number has no name of its own
			c.warn(check, "Its display name is not approved ("+word(n.NameStatus)+").", "Submit the display name for review in WhatsApp Manager.")
		}
	}
	if n.Quality == "YELLOW" || n.Quality == "RED" {
		c.warn(check, "Its quality is "+word(n.Quality)+": customers block or report it.", "Write to customers who expect it only, and look at the quality in WhatsApp Manager.")
	}
	if n.AccountMode == "SANDBOX" {
		c.warn(check, "It is a test number: it writes to the few numbers that are registered for it.", "Add a number of your own before customers are to be reached.")
	}
	if len(c.findings) > before {
		return
	}
	detail := "It is connected"
	if n.Status == "" {
		detail = "Meta knows it"
	}
	if ok {
		detail += ", ends in " + lastDigits(shown.Value)
	}
	if n.Name != "" {
		detail += fmt.Sprintf(", and shows the name %q", providers.Text(n.Name, maxName))
	}
	detail += "."
	if n.Quality != "" {
		detail += " Quality: " + word(n.Quality) + "."
	}
	if n.Throughput.Level != "" {
		detail += " Throughput: " + word(n.Throughput.Level) + "."
	}
	c.ok(check, detail)
}

// lastDigits is what may be shown of a number.
func lastDigits(number string) string { return number[max(0, len(number)-4):] }

// health looks at what Meta itself says of whether messages can be sent: by
// the number, its account, the business and the app.
func (c *checkup) health(n *phoneNumber) {
	const check = "sending"
	var at []string
	for _, e := range n.Health.Entities {
		if e.CanSend == "" || e.CanSend == "AVAILABLE" {
			continue
		}
		what := word(e.Type) + " is " + word(e.CanSend)
		for _, one := range e.Errors {
			if number := code(one.Code); number != "" {
				what += " (code " + number + ")"
			}
		}
		at = append(at, what)
	}
	detail := strings.Join(at, ", ")
	if detail == "" {
		detail = "the reason is not told"
	}
	const mend = "Look at the health of number, account and app in WhatsApp Manager; the code is in Meta's list of error codes."
	switch n.Health.CanSend {
	case "AVAILABLE":
		c.ok(check, "Meta says that messages can be sent.")
	case "BLOCKED":
		c.wrong(check, "Meta says that messages cannot be sent: "+detail+".", mend)
	case "LIMITED":
		c.warn(check, "Meta says that messages can be sent within limits: "+detail+".", mend)
	}
}

// account looks whether the number is of the account. It is false when Meta
// does not know the account.
func (c *checkup) account(ctx context.Context) bool {
	const check = "account"
	numbers, err := list[struct {
		ID providers.Loose `json:"id"`
	}](ctx, c, url.PathEscape(c.p.wabaID)+"/phone_numbers", url.Values{"limit": {"100"}}, "id", "id")
	if err != nil {
		c.refused(check, err, "Set waba_id to the id of the WhatsApp Business Account, as WhatsApp Manager shows it, and assign the account to the token's system user.")
		return false
	}
	for _, n := range numbers {
		if string(n.ID) == c.p.numberID {
			c.ok(check, "The number is one of the account's.")
			return true
		}
	}
	c.wrong(check, "The number is none of the account's: waba_id and phone_number_id do not go together.", "Set waba_id to the account that has the number.")
	return true
}

// subscription looks whether webhooks of the account come to our app and, as
// far as Meta tells, to our address.
func (c *checkup) subscription(ctx context.Context) {
	const check = "webhook subscription"
	apps, err := list[struct {
		App struct {
			ID providers.Loose `json:"id"`
		} `json:"whatsapp_business_api_data"`
		Override string `json:"override_callback_uri"`
	}](ctx, c, url.PathEscape(c.p.wabaID)+"/subscribed_apps", url.Values{}, "", "")
	const subscribe = "Subscribe the app with POST /{waba_id}/subscribed_apps, and the field messages in the app's dashboard."
	switch {
	case err != nil:
		c.refused(check, err, subscribe)
		return
	case len(apps) == 0:
		c.wrong(check, "No app is subscribed to the account: no message and no status arrives.", subscribe)
		return
	}
	own := -1
	for i, a := range apps {
		if c.p.appID != "" && string(a.App.ID) == c.p.appID {
			own = i
		}
	}
	switch {
	case own >= 0:
		c.ok(check, "The app is subscribed to the account.")
	case c.p.appID != "":
		c.wrong(check, "The app is not among those subscribed to the account: no message and no status arrives.", subscribe)
	default:
		c.ok(check, fmt.Sprintf("Apps subscribed to the account: %d. Whether ours is among them can be told when app_id is set.", len(apps)))
		if len(apps) == 1 {
			own = 0
		}
	}
	if c.webhook == "" && own >= 0 {
		c.webhook = apps[own].Override
	}
}

// address compares where webhooks go with where they are awaited: at this
// sender's address, or at that of another sender of the same app, and with or
// without a secret behind it.
func (c *checkup) address() {
	const check = "webhook address"
	if c.webhook == "" || c.p.webhookURL == "" {
		return
	}
	base, _ := c.p.publicURL()
	for _, sender := range append([]string{c.p.senderID}, siblingIDs(c.p.siblings)...) {
		ours := c.p.webhookURL
		if sender != c.p.senderID {
			ours = base + webhooksPath + url.PathEscape(sender)
		}
		if c.webhook == ours || strings.HasPrefix(c.webhook, ours+"/") {
			c.ok(check, "Webhooks come to "+ours+".")
			return
		}
	}
	elsewhere := "another address"
	if u, err := url.Parse(c.webhook); err == nil && u.Host != "" {
		elsewhere = u.Host // the path may hold a secret
	}
	c.wrong(check, "Webhooks go to "+elsewhere+", not to "+c.p.webhookURL+".", "Set the callback URL in the app's dashboard, or override_callback_uri of the account's subscription, to "+c.p.webhookURL+".")
}

func siblingIDs(siblings map[string]string) []string {
	ids := make([]string, 0, len(siblings))
	for _, id := range siblings {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// webhooksPath is where a sender's webhooks are below the merchant's public
// address.
const webhooksPath = "/webhooks/"

// publicURL is the merchant's public address, which links begin with.
func (p *Provider) publicURL() (string, bool) {
	i := strings.LastIndex(p.webhookURL, webhooksPath)
	if i <= 0 {
		return "", false
	}
	return p.webhookURL[:i], true
}

// approved is a template as Meta has it.
type approved struct {
	Name       string `json:"name"`
	Language   string `json:"language"`
	Status     string `json:"status"`
	Category   string `json:"category"`
	Format     string `json:"parameter_format"`
	Components []struct {
		Type    string `json:"type"`
		Format  string `json:"format"`
		Text    string `json:"text"`
		Buttons []struct {
			Type string `json:"type"`
			URL  string `json:"url"`
		} `json:"buttons"`
	} `json:"components"`
}

const (
	templateNeeded = "name,language,status,category,components"
	templateWished = templateNeeded + ",parameter_format"
)

// templateForms are what is sent with the template of a purpose.
var templateForms = []struct {
	purpose    conversations.Purpose
	setting    string
	parameters int
	path       string // of its link, below the public address; empty: no link
}{
	{conversations.PurposePayment, "template_payment", 3, "/p/"},
	{conversations.PurposeReceipt, "template_receipt", 3, "/r/"},
	{conversations.PurposeCancelled, "template_cancelled", 2, ""},
	{conversations.PurposeRefund, "template_refund", 3, "/r/"},
}

// templates looks at each configured template in each configured language.
func (c *checkup) templates(ctx context.Context) {
	for _, form := range templateForms {
		name := c.p.templates[form.purpose]
		if name == "" {
			c.warn("template "+string(form.purpose), form.setting+" is not set: outside the 24-hour window this message does not go by WhatsApp.", "Submit the template in WhatsApp Manager and set "+form.setting+" to its name.")
			continue
		}
		query := url.Values{"name": {name}, "limit": {"25"}}
		found, err := list[approved](ctx, c, url.PathEscape(c.p.wabaID)+"/message_templates", query, templateWished, templateNeeded)
		if err != nil {
			c.refused("template "+name, err, "Give the system user's token whatsapp_business_management.")
			continue
		}
		for _, language := range c.p.languages {
			check := "template " + name + " (" + language + ")"
			i := slices.IndexFunc(found, func(t approved) bool { return t.Name == name && t.Language == language })
			if i < 0 {
				c.wrong(check, "The account has no such template in this language.", "Submit it in WhatsApp Manager, or take the language out of template_languages.")
				continue
			}
			before := len(c.findings)
			c.template(check, &found[i], form.parameters, form.path)
			if len(c.findings) == before {
				c.ok(check, "It is approved and takes what is sent.")
			}
		}
	}
}

var variable = regexp.MustCompile(`\{\{[^{}]*\}\}`)

// variables counts the different variables of a text.
func variables(text string) int {
	all := variable.FindAllString(text, -1)
	slices.Sort(all)
	return len(slices.Compact(all))
}

// template compares a template with what is sent with it.
func (c *checkup) template(check string, t *approved, parameters int, path string) {
	const again = "Edit it in WhatsApp Manager to the text that the documentation gives, and have it approved again."
	if standing, known := templateStandings[word(t.Status)]; !known || standing != conversations.StandingUsable {
		state := c.wrong
		if !known || standing == conversations.StandingLimited {
			state = c.warn
		}
		state(check, "Its status is "+providers.Word(t.Status)+".", "Look at it in WhatsApp Manager: mend it, appeal, or set another template.")
	}
	if strings.EqualFold(t.Category, "marketing") {
		c.warn(check, "Meta has put it into the category marketing: it costs more, and customers who stopped marketing do not get it.", "Word it as a plain notice about the order and have it reviewed as utility.")
	}
	if strings.EqualFold(t.Format, "named") {
		c.wrong(check, "Its variables have names; numbered ones are sent.", again)
		return
	}
	if len(t.Components) == 0 {
		return // not told
	}
	body, links, first := 0, []string(nil), true
	for _, part := range t.Components {
		switch strings.ToUpper(part.Type) {
		case "BODY":
			body = variables(part.Text)
		case "HEADER":
			if variables(part.Text) > 0 || part.Format != "" && !strings.EqualFold(part.Format, "text") {
				c.wrong(check, "Its header needs a value, and none is sent.", "Take the header's variable or media out and have it approved again.")
			}
		case "BUTTONS":
			for i, b := range part.Buttons {
				if strings.EqualFold(b.Type, "url") && variables(b.URL) > 0 {
					links = append(links, b.URL)
					first = first && i == 0
				}
			}
		}
	}
	if body != parameters {
		c.wrong(check, fmt.Sprintf("Its body has %d variables; %d values are sent.", body, parameters), again)
	}
	c.button(check, links, first, path)
}

// button compares the template's link with ours.
func (c *checkup) button(check string, links []string, first bool, path string) {
	base, known := c.p.publicURL()
	want := base + path + "{{1}}"
	switch {
	case path == "" && len(links) > 0:
		c.wrong(check, "It has a link button with a variable, and none is sent.", "Take the button out and have it approved again.")
	case path == "":
	case len(links) != 1:
		c.wrong(check, fmt.Sprintf("It has %d link buttons with a variable; one is needed.", len(links)), "Give it one button that opens "+want+" and have it approved again.")
	case !first:
		c.wrong(check, "Its link button is not the first button.", "Move it to the first place and have it approved again.")
	case known && links[0] != want:
		c.wrong(check, "Its link button opens another address than "+want+": customers would not reach the page.", "Set the button's address to "+want+" and have it approved again.")
	}
}
