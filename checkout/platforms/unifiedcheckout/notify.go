package unifiedcheckout

import (
	"bytes"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"paythread/checkout/platforms"
)

const (
	// maxNotification is far more than a delivery takes.
	maxNotification = 128 << 10
	// maxAhead is how far in the future a delivery may be signed: clocks differ.
	maxAhead = 5 * time.Minute
)

// webhook is what a merchant's notifications are read with.
type webhook struct {
	keys      map[string][]byte // by id; the previous one stays for a while
	private   []*rsa.PrivateKey // for encrypted deliveries
	tolerance time.Duration
}

// The products and event types that a subscription can name, from the webhook
// guide; a type that ends in a dot stands for all that begin so. The second
// product of risk events is in CyberSource's own plug-ins.
var notificationTypes = map[string][]string{
	"unifiedCheckout": {"uc.orders.transactionresults"},
	"payments":        statusTypes(),
	"payByLink":       {"payByLink.merchant.payment", "payByLink.customer.payment"},
	"decisionManager": {typeReviewAccepted, typeReviewRejected, "risk.profile.decision.reject"},

	"fraudManagementEssentials": {typeReviewAccepted, typeReviewRejected, "risk.profile.decision.reject", "risk.profile.decision.review"},
	"tokenManagement":           {"tms.networktoken."},
	"alternativePaymentMethods": {"payments.payments.updated"},
	"eCheck":                    {"payments.payments.accepted", "payments.payments.failed", "payments.credits.accepted", "payments.credits.failed", "payments.voids.accepted", "payments.voids.failed"},
	"customerInvoicing":         {"invoicing.customer.invoice."},
	"cardProcessing":            {"payments.payments.", "payments.captures.", "payments.refunds.", "payments.credits.", "payments.voids.", "payments.reversals."},
}

// statusTypes are the types of the product payments.
func statusTypes() []string {
	var types []string
	for _, service := range []string{"authorization", "capture", "refund", "credit", "void", "reversal"} {
		for _, status := range []string{"accepted", "updated", "rejected", "reviewed", "partiallyApproved"} {
			types = append(types, "payments."+service+".status."+status)
		}
	}
	return types
}

// The two types that end a review. A profile's own reject is not among them:
// that is the answer to the charge, which knows it.
const (
	typeReviewAccepted = "risk.casemanagement.decision.accept"
	typeReviewRejected = "risk.casemanagement.decision.reject"
)

// knownType tells whether a type is in the table, of that product if it is told.
func knownType(product, name string) bool {
	for p, types := range notificationTypes {
		if product != "" && p != product {
			continue
		}
		if slices.ContainsFunc(types, func(t string) bool {
			if strings.HasSuffix(t, ".") {
				return len(name) > len(t) && strings.HasPrefix(name, t)
			}
			return name == t
		}) {
			return true
		}
	}
	return false
}

// ReadNotification implements platforms.Notifying.
//
// What CyberSource signs is the inner payload alone in some products, the whole
// body in others. Only the part that verified is believed. Where the envelope is
// not part of it, its event type is somebody's word: good enough to know what to
// ask about, never for a decision.
func (p *Platform) ReadNotification(header func(string) string, body []byte, now time.Time) (platforms.Notification, error) {
	s, ok := readSignature(header("v-c-signature"))
	key, known := p.webhook.keys[s.keyID]
	if !ok || !known || len(body) == 0 || len(body) > maxNotification {
		return platforms.Notification{}, platforms.ErrNotificationSignature
	}
	views := p.views(body)
	i := slices.IndexFunc(views, func(v view) bool { return s.signs(key, v.text) })
	if i < 0 {
		return platforms.Notification{}, platforms.ErrNotificationSignature
	}
	if now.Sub(s.at) > p.webhook.tolerance || s.at.Sub(now) > maxAhead {
		return platforms.Notification{}, platforms.ErrNotificationStale
	}
	if views[i].unreadable {
		return platforms.Notification{}, platforms.ErrNotificationUnreadable
	}
	return views[i].notification(header)
}

// signature is the value of the header v-c-signature.
type signature struct {
	stamp string // milliseconds, as they were signed
	at    time.Time
	keyID string
	sum   []byte
}

// readSignature reads "t=…;keyId=…;sig=…", in any order, with spaces or without.
func readSignature(value string) (s signature, ok bool) {
	if len(value) > 512 {
		return signature{}, false
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(value, ";") {
		name, v, found := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := parts[name]; !found || twice {
			return signature{}, false
		}
		parts[name] = v
	}
	s.stamp, s.keyID = parts["t"], parts["keyId"]
	if s.stamp == "" || len(s.stamp) > 15 || strings.Trim(s.stamp, "0123456789") != "" {
		return signature{}, false
	}
	ms, err := strconv.ParseInt(s.stamp, 10, 64)
	if err != nil {
		return signature{}, false
	}
	s.at = time.UnixMilli(ms)
	s.sum, err = base64.StdEncoding.Strict().DecodeString(parts["sig"])
	return s, err == nil && len(s.sum) == sha256.Size
}

// signs tells whether this is the key's signature of the text.
func (s signature) signs(key, text []byte) bool {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(s.stamp + ".")) // a hash never fails
	mac.Write(text)
	return hmac.Equal(mac.Sum(nil), s.sum)
}

// view is one text that CyberSource may have signed, and what may be read of
// the delivery if it did.
type view struct {
	text       []byte
	envelope   members
	signed     bool // the envelope is part of what was signed
	payload    json.RawMessage
	unreadable bool
}

// views lists what may have been signed: of a plain delivery the inner payload,
// as it came and compact, as JSON.stringify writes it, and then the body; of an
// encrypted one first the same of what it holds. Nothing is believed by this.
func (p *Platform) views(body []byte) []view {
	whole := view{text: body, signed: true}
	envelope, err := readObject(body)
	sealed, around := cipherOf(body, envelope)
	if err != nil && sealed == "" {
		whole.unreadable = true
		return []view{whole}
	}
	whole.envelope, whole.payload = envelope, envelope["payload"]
	if sealed == "" {
		return append(inner(whole.payload, view{envelope: envelope, payload: whole.payload}), whole)
	}
	// Whoever has the public key can encrypt. What proves a text is that its
	// cipher was signed: as part of the body, or of the payload that held it.
	ciphers := append(inner(around, view{envelope: envelope}), whole)
	text, err := p.decrypt(sealed)
	var opened json.RawMessage
	if err == nil {
		opened, err = readJSON(text)
	}
	if err != nil {
		for i := range ciphers {
			ciphers[i].unreadable = true
		}
		return append(ciphers, inner(text, view{unreadable: true})...)
	}
	within := membersOf(opened)
	payload := within["payload"]
	if payload == nil { // the payload alone was encrypted
		for i := range ciphers {
			ciphers[i].payload = opened
		}
		return append(ciphers, inner(text, view{envelope: envelope, payload: opened})...)
	}
	for i := range ciphers {
		ciphers[i].envelope, ciphers[i].signed, ciphers[i].payload = within, true, payload
	}
	views := append(ciphers, inner(text, view{envelope: within, signed: true, payload: payload})...)
	return append(views, inner(payload, view{envelope: within, payload: payload})...)
}

// inner lists the two ways in which a part of a delivery may have been signed,
// with what may be read then. The envelope around it is not among it.
func inner(part []byte, v view) []view {
	if len(part) == 0 {
		return nil // nobody can have signed that
	}
	v.text = part
	views := []view{v}
	if c := compact(part); !bytes.Equal(c, part) {
		v.text = c
		views = append(views, v)
	}
	return views
}

// cipherOf returns the JWE of an encrypted delivery: the body's encData, or the
// body itself, or that of its payload, which is then the part around it.
func cipherOf(body []byte, envelope members) (cipher string, around json.RawMessage) {
	if c := envelope.text("encData"); c != "" {
		return c, nil
	}
	if payload := envelope["payload"]; bytes.Contains(payload, []byte(`"encData"`)) {
		if c := membersOf(payload).text("encData"); c != "" {
			return c, payload
		}
	}
	if text := string(bytes.TrimSpace(body)); envelope == nil && strings.Count(text, ".") == 4 {
		return text, nil
	}
	return "", nil
}

var errNotDecrypted = errors.New("no key of ours opens it")

// decrypt opens a JWE with one of our keys. The methods are the two that
// CyberSource uses and no other.
func (p *Platform) decrypt(cipher string) ([]byte, error) {
	if len(p.webhook.private) == 0 {
		return nil, errNotDecrypted
	}
	sealed, err := jose.ParseEncryptedCompact(cipher, []jose.KeyAlgorithm{jose.RSA_OAEP_256}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, errNotDecrypted
	}
	for _, key := range p.webhook.private {
		if clear, err := sealed.Decrypt(key); err == nil {
			return clear, nil
		}
	}
	return nil, errNotDecrypted
}

// notification reads a view whose text was signed.
func (v view) notification(header func(string) string) (platforms.Notification, error) {
	entry := v.payload
	if bytes.HasPrefix(entry, []byte("[")) {
		var entries []json.RawMessage
		if err := json.Unmarshal(entry, &entries); err != nil || len(entries) != 1 {
			return platforms.Notification{}, platforms.ErrNotificationUnreadable // of several, one alone would be taken
		}
		entry = entries[0]
	}
	places := placesOf(entry)
	name, trusted := places[0].text("eventType"), true
	if name == "" {
		name, trusted = v.envelope.text("eventType"), v.signed
	}
	if name == "" {
		name, trusted = header("v-c-event-type"), false
	}
	product := v.envelope.text("productId")
	if product == "" {
		product = header("v-c-product-name")
	}
	n := platforms.Notification{Product: eventWord(product), Type: eventWord(name)}
	n.Known = knownType(n.Product, n.Type)
	if id := firstOf(places, "id"); idForm.MatchString(id) {
		n.TransactionID = id
	}
	n.Code = codeIn(places)
	if trusted && n.Known && (n.TransactionID != "" || n.Code != "") {
		switch n.Type {
		case typeReviewAccepted:
			n.Review = platforms.ReviewAccepted
		case typeReviewRejected:
			n.Review = platforms.ReviewRejected
		}
	}
	n.Key = notificationKey(n, firstOf(places, "status"), firstOf(places, "outcome"), entry)
	return n, nil
}

// notificationKey is the same for each delivery of the same news. A decision
// has another one than the same words from an envelope that was not signed, or
// whoever repeats those could have the decision taken for known.
func notificationKey(n platforms.Notification, status, outcome string, entry []byte) string {
	if status == "" {
		status = outcome
	}
	about := n.TransactionID
	if about == "" {
		about = string(compact(entry)) // the envelope of each delivery differs
	}
	hash := sha256.New()
	for _, part := range []string{about, n.Type, status, string(n.Review)} {
		hash.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return "cybersource-" + hex.EncodeToString(hash.Sum(nil)[:16])
}

// members are those of a JSON object, as they are written.
type members map[string]json.RawMessage

// membersOf reads an object; anything else has no members.
func membersOf(raw json.RawMessage) members {
	var m members
	if !bytes.HasPrefix(raw, []byte("{")) || json.Unmarshal(raw, &m) != nil {
		return nil
	}
	return m
}

// text returns a string or whole number, else nothing.
func (m members) text(name string) string {
	value := m[name]
	if len(value) == 0 || value[0] != '"' && strings.Trim(string(value), "0123456789") != "" {
		return ""
	}
	var t text
	if json.Unmarshal(value, &t) != nil {
		return ""
	}
	return string(t)
}

// placesOf returns where the shapes of the products keep what a notification is
// about. The entry itself comes first.
func placesOf(entry json.RawMessage) []members {
	own := membersOf(entry)
	result := membersOf(own["transactionResult"])
	return []members{own, membersOf(result["details"]), result, membersOf(own["data"]), membersOf(own["details"])}
}

// firstOf returns the first text of that name.
func firstOf(places []members, name string) string {
	for _, place := range places {
		if s := place.text(name); s != "" {
			return s
		}
	}
	return ""
}

// codeIn returns the reference that a notification names, if it can be one of
// ours. Cases call it a reference number.
func codeIn(places []members) string {
	for _, place := range places {
		for _, code := range []string{membersOf(place["clientReferenceInformation"]).text("code"), place.text("referenceNumber")} {
			if codeForm.MatchString(code) && len(code) <= maxCode {
				return code
			}
		}
	}
	return ""
}

// readObject reads a JSON object that has no member twice.
func readObject(text []byte) (members, error) {
	raw, err := readJSON(text)
	if err != nil {
		return nil, err
	}
	if m := membersOf(raw); m != nil {
		return m, nil
	}
	return nil, errAmbiguous
}

// readJSON reads one JSON value whose objects have no member twice. Its bytes
// stay as they are.
func readJSON(text []byte) (json.RawMessage, error) {
	var raw json.RawMessage
	if err := decodeStrict(text, &raw); err != nil {
		return nil, err
	}
	return raw, nil
}

func compact(raw []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// eventWord keeps the name of a product or a type only if it looks like one.
func eventWord(s string) string {
	if len(s) > 100 || strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) {
		return ""
	}
	return s
}

// readWebhookKeys reads "keyId:base64,keyId:base64".
func readWebhookKeys(value string, wrong func(string, ...any)) map[string][]byte {
	keys := map[string][]byte{}
	if strings.TrimSpace(value) == "" {
		return keys
	}
	n := 0
	for entry := range strings.SplitSeq(value, ",") {
		n++
		id, secret, ok := strings.Cut(strings.TrimSpace(entry), ":")
		key, err := base64.StdEncoding.DecodeString(secret)
		switch _, twice := keys[id]; {
		case !ok || id == "" || len(id) > 100 || eventWord(id) == "" || err != nil || len(key) == 0:
			wrong("webhook_keys: entry %d is not keyId:secret with the secret in base64", n)
		case twice:
			wrong("webhook_keys: entry %d has the same keyId as one before it", n)
		default:
			keys[id] = key
		}
	}
	return keys
}

// readPrivateKeys reads PKCS #8 keys in PEM, one after the other.
func readPrivateKeys(value string, wrong func(string, ...any)) []*rsa.PrivateKey {
	var keys []*rsa.PrivateKey
	rest := bytes.TrimSpace([]byte(value))
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "PRIVATE KEY" {
			wrong("webhook_private_key is not PEM with the label PRIVATE KEY (PKCS #8)")
			return nil
		}
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		key, ok := parsed.(*rsa.PrivateKey)
		if err != nil || !ok || key.N.BitLen() < 2048 {
			wrong("webhook_private_key is not an RSA key of at least 2048 bits")
			return nil
		}
		keys = append(keys, key)
		rest = bytes.TrimSpace(rest)
	}
	return keys
}
