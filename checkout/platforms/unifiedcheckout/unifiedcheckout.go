// Package unifiedcheckout takes payments through CyberSource Unified Checkout
// v1: the browser's library turns a card into a transient token, and our
// server charges it with the payments API. There is no complete mandate, so
// nothing is charged but by Charge.
//
// Facts are from the Unified Checkout guide, the payments guide and the
// transaction search guide on developer.cybersource.com, and from the official
// SDKs where the guides are silent.
package unifiedcheckout

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
)

// The hosts, from the REST getting started guide.
const (
	liveURL    = "https://api.cybersource.com"
	sandboxURL = "https://apitest.cybersource.com"
)

// Limits of the API, from its field reference.
const (
	maxCode          = 50 // clientReferenceInformation.code
	maxTransactionID = 30 // clientReferenceInformation.transactionId
)

// pageOrigins are what the client library uses beside the API's own host, as
// seen in real contexts: the widget's frames and the token service.
var pageOrigins = map[string][]string{
	liveURL:    {"https://up.cybersource.com", "https://flex.cybersource.com"},
	sandboxURL: {"https://testup.cybersource.com", "https://testflex.cybersource.com"},
}

// Name is what the configuration calls this platform.
const Name = "unified_checkout"

// Registration is this platform in the gateway's list.
var Registration = platforms.Registration{Name: Name, Settings: settings, New: New}

var settings = []platforms.Setting{
	{Name: "base_url", Doc: "address of CyberSource's REST API; empty: by environment, " + liveURL + " or " + sandboxURL, Account: true},
	{Name: "merchant_id", Doc: "the transacting merchant id (MID)", Required: true, Account: true},
	{Name: "key_id", Doc: "id of the REST shared-secret key", Required: true},
	{Name: "shared_secret", Doc: "the REST shared secret, base64 as the Business Center shows it", Secret: true, Required: true},
	{Name: "auth", Doc: "how calls are signed: jwt or http_signature. CyberSource has deprecated the latter, and it has no end: a charge that leaves late, such as from a process that was stopped on its way out, is refused by CyberSource with jwt and taken with http_signature. With jwt this machine's clock must be right to a few seconds", Default: "jwt"},
	{Name: "allowed_card_networks", Doc: "comma-separated: " + strings.Join(networks, " "), Default: "VISA,MASTERCARD,AMEX"},
	{Name: "allowed_payment_types", Doc: "comma-separated: PANENTRY CLICKTOPAY GOOGLEPAY APPLEPAY PAZE", Default: "PANENTRY"},
	{Name: "country", Doc: "the merchant's country, ISO 3166 alpha-2, for example ZA", Required: true},
	{Name: "page_origins", Doc: "comma-separated further origins that the pay page may load from: wallets, 3-D Secure, or the browser's address of base_url where it differs"},
	{Name: "search_window", Doc: "how long before and after an attempt transactions are searched", Default: "24h"},
	{Name: "search_lag", Doc: "how long a transaction may be missing in CyberSource's search. A capture or refund that was never answered is sent once more only if it does not show by then; at most 45m", Default: "25m"},
	{Name: "timeout_reversal", Doc: "how a charge is taken back whose answer never came and which the search does not show: vpc, by its transactionId, where the processor behind the account is Visa Platform Connect, and then the customer may pay again at once; none everywhere else", Default: timeoutNone},
	{Name: "timeout_reversal_after", Doc: "how long after a charge that is done; CyberSource wants at least 60s", Default: "60s"},
	{Name: "webhook_keys", Doc: "keys that CyberSource signs notifications with, keyId:secret, the secret in base64; several with commas, so that the previous one is still taken after a new one was made. Empty: notifications are refused", Secret: true},
	{Name: "webhook_private_key", Doc: "private key for encrypted notifications (message-level encryption), RSA, PKCS #8 in PEM; several one after the other", Secret: true},
	{Name: "webhook_tolerance", Doc: "how long after it was signed a notification is taken; CyberSource's repeats may carry the first signature", Default: "60m"},
}

// networks are the published card networks.
var networks = strings.Fields("VISA MASTERCARD AMEX CARNET CARTESBANCAIRES CUP DINERSCLUB DISCOVER EFTPOS ELO JAYWAN JCB JCREW KCP MADA MAESTRO MEEZA PAYPAK UATP")

// paymentTypes are those that give a transient token for a card. Bank
// transfers end elsewhere and are not charged by this platform.
var paymentTypes = strings.Fields("PANENTRY CLICKTOPAY GOOGLEPAY APPLEPAY PAZE")

// Platform is Unified Checkout for one merchant. It is safe for concurrent use
// and implements all of the abilities that platforms knows.
type Platform struct {
	client       *cybersource.Client
	log          *slog.Logger
	now          func() time.Time
	merchantID   string
	networks     []string
	types        []string
	country      string
	origins      []string
	searchWindow time.Duration
	searchLag    time.Duration
	// plainHTTP allows a client library over http, which only something that
	// stands in for CyberSource under an http address gives.
	plainHTTP    bool
	keys         keyCache
	timeoutAfter time.Duration // zero: the processor knows no time-out reversal
	webhook      webhook
}

var (
	_ platforms.Platform = (*Platform)(nil)
	_ platforms.Browsing = (*Platform)(nil)
	_ platforms.Inquirer = (*Platform)(nil)
	_ platforms.Reverser = (*Platform)(nil)
	_ platforms.Capturer = (*Platform)(nil)
	_ platforms.Refunder = (*Platform)(nil)

	_ platforms.TimeoutReverser = (*Platform)(nil)
	_ platforms.Auditor         = (*Platform)(nil)
	_ platforms.Notifying       = (*Platform)(nil)
	_ platforms.Checker         = (*Platform)(nil)
)

// New returns the platform, or one error that names all that is wrong with its
// settings. It makes no call.
func New(s platforms.Settings, client *http.Client, log *slog.Logger) (platforms.Platform, error) {
	values, err := platforms.Resolve(settings, s.Values)
	problems := []error{err}
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	p := &Platform{log: log.With("platform", Name, "merchant_id", s.MerchantID), now: s.Now, merchantID: values["merchant_id"], country: values["country"]}
	if p.now == nil {
		p.now = time.Now
	}
	p.networks = list(values["allowed_card_networks"], networks, "allowed_card_networks", wrong)
	p.types = list(values["allowed_payment_types"], paymentTypes, "allowed_payment_types", wrong)
	if p.country != "" && !countryForm.MatchString(p.country) {
		wrong("country is not an ISO 3166 alpha-2 code like ZA")
	}
	if p.searchWindow, err = time.ParseDuration(values["search_window"]); err != nil || p.searchWindow < time.Hour {
		wrong("search_window is not a duration of at least 1h")
	}
	if p.searchLag, err = time.ParseDuration(values["search_lag"]); err != nil || p.searchLag <= 0 || p.searchLag > maxSearchLag {
		wrong("search_lag is not a duration above 0 and at most %s", maxSearchLag)
	}
	base := values["base_url"]
	switch {
	case base != "":
	case s.Sandbox:
		base = sandboxURL
	default:
		base = liveURL
	}
	real := true
	if u, err := url.Parse(base); err == nil {
		real = strings.HasSuffix(strings.ToLower(u.Hostname()), ".cybersource.com")
		p.plainHTTP = u.Scheme == "http"
		origin := u.Scheme + "://" + u.Host
		p.origins = append([]string{origin}, pageOrigins[origin]...)
	}
	for origin := range strings.SplitSeq(values["page_origins"], ",") {
		origin = strings.TrimSpace(origin)
		switch {
		case origin == "":
		case !originForm.MatchString(origin):
			wrong("page_origins: %q is not an origin like https://pay.google.com", origin)
		case !slices.Contains(p.origins, origin):
			p.origins = append(p.origins, origin)
		}
	}
	p.timeoutAfter = timeoutReversal(values["timeout_reversal"], values["timeout_reversal_after"], real, wrong)
	p.webhook.keys = readWebhookKeys(values["webhook_keys"], wrong)
	p.webhook.private = readPrivateKeys(values["webhook_private_key"], wrong)
	if p.webhook.tolerance, err = time.ParseDuration(values["webhook_tolerance"]); err != nil || p.webhook.tolerance < time.Minute || p.webhook.tolerance > 7*24*time.Hour {
		wrong("webhook_tolerance is not a duration from 1m to 168h")
	}
	credentials := cybersource.Credentials{MerchantID: p.merchantID, KeyID: values["key_id"], SharedSecret: values["shared_secret"]}
	var signer cybersource.Signer
	if credentials.MerchantID != "" && credentials.KeyID != "" && credentials.SharedSecret != "" { // else named above as missing
		switch values["auth"] {
		case "jwt":
			signer, err = cybersource.NewJWTSigner(credentials, p.now, uuid.NewString)
		case "http_signature":
			signer, err = cybersource.NewHTTPSigner(credentials, p.now)
		default:
			err = errors.New("auth is neither jwt nor http_signature")
		}
		problems = append(problems, err)
	}
	p.client, err = cybersource.NewClient(base, signer, client, p.log, p.now)
	problems = append(problems, err)
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return p, nil
}

// Origins implements platforms.Browsing.
func (p *Platform) Origins() []string { return slices.Clone(p.origins) }

// timeoutReversal reads how long after a charge it can be taken back by its
// transactionId; zero for never. Only something that stands in for CyberSource
// may be asked earlier than CyberSource wants it.
func timeoutReversal(processor, after string, real bool, wrong func(string, ...any)) time.Duration {
	d, err := time.ParseDuration(after)
	if err != nil || d <= 0 || real && d < leastTimeoutWait {
		wrong("timeout_reversal_after is not a duration of at least %s", leastTimeoutWait)
	}
	switch processor {
	case timeoutVPC:
		return d
	case timeoutNone:
	default:
		wrong("timeout_reversal is neither none nor vpc")
	}
	return 0
}

// list reads comma-separated words and checks them against the known ones.
func list(value string, known []string, name string, wrong func(string, ...any)) []string {
	var words []string
	for word := range strings.SplitSeq(value, ",") {
		word = strings.TrimSpace(word)
		switch {
		case word == "":
		case !slices.Contains(known, word):
			wrong("%s: %q is not one of %s", name, word, strings.Join(known, " "))
		case !slices.Contains(words, word):
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		wrong("%s is empty", name)
	}
	return words
}

var (
	// originForm keeps anything else out of the page's content policy.
	originForm  = regexp.MustCompile(`^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?$`)
	countryForm = regexp.MustCompile(`^[A-Z]{2}$`)
	// idForm fits CyberSource's ids. They become parts of paths.
	idForm = regexp.MustCompile(`^[0-9A-Za-z]{1,64}$`)
	// codeForm fits our references. They become parts of a search query.
	codeForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_.-]*$`)
)
