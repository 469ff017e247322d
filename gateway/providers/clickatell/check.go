package clickatell

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// Check asks Clickatell for the balance, which needs the key and costs
// nothing, and looks at what else must be right. Callback addresses, numbers
// and templates cannot be asked for: what to look at in the portal is said
// instead.
func (p *Provider) Check(ctx context.Context) []providers.Finding {
	findings := append(p.checkAccount(ctx), p.checkTrust(), p.checkAddresses())
	if p.channel == conversations.WhatsApp {
		findings = append(findings, p.checkTemplates())
	}
	return findings
}

// checkAccount asks for the balance.
func (p *Provider) checkAccount(ctx context.Context) []providers.Finding {
	key := providers.Finding{Check: "api key", State: providers.FindingWrong}
	req, err := p.request(ctx, http.MethodGet, "/v1/balance", bytes.NewReader(nil))
	if err != nil {
		key.Detail, key.Mend = "base_url makes no address", "set base_url to the address of Clickatell's One API"
		return []providers.Finding{key}
	}
	a, err := providers.Call(p.client, req)
	if err != nil {
		key.Detail, key.Mend = "Clickatell does not answer", "see that "+hostOf(p.base)+" can be reached from here, through the proxy if there is one"
		if errors.Is(err, context.DeadlineExceeded) {
			key.Detail = "Clickatell does not answer in time"
		}
		return []providers.Finding{key}
	}
	var body struct {
		Balance  providers.Loose `json:"balance"`
		Currency providers.Loose `json:"currency"`
		Error    apiError        `json:"error"`
	}
	unread := json.Unmarshal(a.Body, &body)
	if !a.OK() {
		why, _ := lookUp(body.Error.code)
		return []providers.Finding{refusedKey(key, a.Status, body.Error.code, why.Reason)}
	}
	key.State, key.Detail = providers.FindingOK, "Clickatell takes it"
	credit := providers.Finding{Check: "credit", State: providers.FindingWarning}
	amount, err := strconv.ParseFloat(string(body.Balance), 64)
	currency := string(body.Currency)
	if !currencyForm.MatchString(currency) {
		currency = "in the account's currency"
	}
	switch {
	case unread != nil || err != nil:
		credit.Detail, credit.Mend = "the answer to the question for the balance cannot be read", "look at the balance in Clickatell's portal"
	case amount <= 0:
		credit.Detail, credit.Mend = fmt.Sprintf("the balance is %.2f %s", amount, currency), "unless the account is paid afterwards, buy credit in Clickatell's portal"
	default:
		credit.State, credit.Detail = providers.FindingOK, fmt.Sprintf("the balance is %.2f %s", amount, currency)
	}
	return []providers.Finding{key, credit}
}

var currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)

// refusedKey says why the balance was not told.
func refusedKey(f providers.Finding, status int, number string, reason conversations.FailureReason) providers.Finding {
	f.Detail = fmt.Sprintf("Clickatell refuses it with status %d", status)
	if number != "" {
		f.Detail += ", error " + number
	}
	switch {
	case number == "7":
		f.Mend = "allow this machine's address in the portal, or take the list of addresses away"
	case reason == conversations.FailureAuth || status == http.StatusUnauthorized:
		f.Mend = "copy the API key of the One API integration again; keys of other APIs do not count"
	case number == "2" || number == "3" || number == "38" || number == "39":
		f.Mend = "switch account, integration and channel on in the portal"
	case status == http.StatusNotFound || number == "41" || number == "42":
		f.Mend = "set base_url to the address of Clickatell's One API"
	case status >= 500 || status == http.StatusTooManyRequests || reason == conversations.FailureRate:
		f.State, f.Mend = providers.FindingWarning, "try again in a while"
	default:
		f.Mend = "look at the integration in the portal"
	}
	return f
}

// hostOf names the server of an address, without its path.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "Clickatell"
	}
	return u.Host
}

// fewCharacters is how many different characters a secret has at least that was
// made at random: of 32 random hexadecimal digits about 14 differ.
const fewCharacters = 10

// checkTrust looks at what tells callbacks from forgeries.
func (p *Provider) checkTrust() providers.Finding {
	f := providers.Finding{Check: "webhook secret", State: providers.FindingOK}
	different := map[rune]bool{}
	for _, r := range p.secret {
		different[r] = true
	}
	switch {
	case !strings.HasPrefix(p.webhookURL, "https://"):
		f.State, f.Detail = providers.FindingWrong, "the callback address is not https: the secret would travel in the open, and the One API calls https only"
		f.Mend = "set public_url to an https address"
	case p.secret == "":
		f.State, f.Detail = providers.FindingWarning, "callbacks are trusted for user and password alone"
		f.Mend = "set webhook_secret too, and enter the longer address in the portal"
	case len(different) < fewCharacters:
		f.State, f.Detail = providers.FindingWarning, fmt.Sprintf("webhook_secret has %d different characters and does not look random", len(different))
		f.Mend = "make one with \"openssl rand -hex 32\", and keep the old one as webhook_secret_previous until the portal has the new address"
	default:
		f.Detail = "callbacks must come to an address that ends in webhook_secret"
		if len(p.users) > 0 {
			f.Detail += ", with user and password"
		}
	}
	return f
}

// checkAddresses says what must stand in the portal, without the secret.
func (p *Provider) checkAddresses() providers.Finding {
	address := p.webhookURL
	if p.secret != "" {
		address += "/WEBHOOK_SECRET"
	}
	f := providers.Finding{
		Check: "webhook address", State: providers.FindingOK,
		Detail: "Clickatell's API does not tell which callback addresses are set, nor whether from is a two-way number of the integration",
		Mend:   "in the portal, in the settings of the One API integration, enter " + address + " for reply callbacks and for status callbacks",
	}
	if p.secret != "" {
		f.Mend += ", with the value of webhook_secret as its end"
	}
	if len(p.users) > 0 {
		f.Mend += "; user and password are those of webhook_user"
	}
	return f
}

// checkTemplates looks at which templates are named. Whether WhatsApp has
// approved them is told by the portal only.
func (p *Provider) checkTemplates() providers.Finding {
	f := providers.Finding{Check: "templates", State: providers.FindingOK, Detail: "all four are named; Clickatell's API does not tell whether they are approved",
		Mend: "see in the portal that they are, and send each to yourself once: how the API takes them is not well documented"}
	var missing []string
	for _, purpose := range conversations.NoticePurposes {
		if len(p.templates[purpose]) == 0 {
			missing = append(missing, templateSettings[purpose])
		}
	}
	if len(missing) == 0 {
		return f
	}
	f.State, f.Detail = providers.FindingWarning, "not set: "+strings.Join(missing, ", ")
	f.Mend = "create the templates in Clickatell's portal, wait until they are approved, and name them: without one, such a message goes by WhatsApp only within 24 hours of the customer's last word"
	if len(p.templates[conversations.PurposePayment]) == 0 {
		f.State = providers.FindingWrong
	}
	return f
}
