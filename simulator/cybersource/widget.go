package cybersource

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

//go:embed web
var webFiles embed.FS

// asset is a file for browsers, under a path that changes with its content.
type asset struct {
	path      string
	integrity string
}

const libraryFile = "UnifiedCheckout.js"

func clientLibrary() asset {
	return asset{path: assetPath(libraryFile), integrity: integrityOf(readAsset(libraryFile))}
}

// readAsset panics on a file that is not embedded: that is a mistake in this package.
func readAsset(name string) []byte {
	b, err := webFiles.ReadFile("web/" + name)
	if err != nil {
		panic(err)
	}
	return b
}

func assetVersion(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:6])
}

func assetPath(name string) string {
	return "/uc/v1/assets/" + assetVersion(readAsset(name)) + "/" + name
}

// serveAsset serves scripts and styles. Any origin may read them, as the integrity attribute needs.
func (s *Simulator) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	kind := mime.TypeByExtension(path.Ext(name))
	content, err := webFiles.ReadFile("web/" + name)
	if err != nil || path.Ext(name) == ".html" || r.PathValue("version") != assetVersion(content) {
		http.NotFound(w, r)
		return
	}
	allowAnyOrigin(w)
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	_, _ = w.Write(content) // the client has gone; there is nobody left to tell
}

// frame is one card form, made when a page starts the library with a context.
type frame struct {
	id      string
	context *captureContext
	origin  string // of the page; the only one that the frame talks to
}

// clientRequest is what the library tells of its page. The page's own origin is the Origin header,
// which a page cannot choose.
type clientRequest struct {
	CaptureContext string   `json:"captureContext"`
	Ancestors      []string `json:"ancestorOrigins"`
}

// serveClient checks a capture context for the library and opens a card form for it.
func (s *Simulator) serveClient(w http.ResponseWriter, r *http.Request) {
	allowAnyOrigin(w)
	c := &call{r: r, correlationID: newCorrelationID()}
	refuse := func(reason, message string, details ...fieldError) {
		s.write(w, c.correlationID, flexRefusal(c, reason, message, details...))
	}
	var req clientRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req); err != nil {
		refuse("CAPTURE_CONTEXT_INVALID", "The capture context is not valid.")
		return
	}
	ctx, err := s.openContext(req.CaptureContext)
	if err != nil {
		reason, message := contextReason(err)
		refuse(reason, message)
		return
	}
	origin := r.Header.Get("Origin")
	if !slices.Contains(ctx.request.TargetOrigins, origin) {
		refuse("UNUSED_TARGET_ORIGINS", "The page's origin is not among the target origins.", fieldError{"targetOrigins", "does not hold the page's origin"})
		return
	}
	for _, target := range ctx.request.TargetOrigins {
		if target != origin && !slices.Contains(req.Ancestors, target) {
			refuse("UNUSED_TARGET_ORIGINS", "The target origins hold an origin that is not used.", fieldError{"targetOrigins", "holds an origin that is not the page's"})
			return
		}
	}
	if !takesCards(ctx.request.AllowedPaymentTypes) {
		refuse("MOUNT_PAYMENT_UNAVAILABLE", "None of the allowed payment types is available.", fieldError{"allowedPaymentTypes", "has no type that takes cards"})
		return
	}
	f := &frame{id: randomText(upperAlphanumerics, 32), context: ctx, origin: origin}
	s.mu.Lock()
	s.frames[f.id] = f
	s.mu.Unlock()
	s.write(w, c.correlationID, answer{status: http.StatusCreated, body: object{
		"frame":                   f.id,
		"path":                    "/uc/v1/frames/" + f.id,
		"availablePaymentMethods": []string{"PANENTRY"},
		"hasMandate":              ctx.request.CompleteMandate != nil,
		"buttonText":              orElse(buttonTexts[ctx.request.ButtonType], "Pay with card"),
	}})
}

// takesCards says whether a card may be typed: Click to Pay's form allows it as well.
func takesCards(types []string) bool {
	return slices.Contains(types, "PANENTRY") || slices.Contains(types, "CLICKTOPAY")
}

var buttonTexts = map[string]string{
	"CHECKOUT": "Check out", "CARD_PAYMENT": "Card payment", "DEBIT_CREDIT": "Debit or credit card",
	"CHECKOUT_AND_CONTINUE": "Check out and continue", "DONATE": "Donate", "ADD_CARD": "Add card", "SAVE_CARD": "Save card",
	"SUBSCRIBE_WITH_CARD": "Subscribe with card",
}

// frameSettings is what the card form's script knows.
type frameSettings struct {
	Frame    string         `json:"frame"`
	Origin   string         `json:"origin"`
	Networks []frameNetwork `json:"networks"`
	Country  string         `json:"country"`
}

type frameNetwork struct {
	Name    string   `json:"name"`
	Label   string   `json:"label"`
	CVN     int      `json:"cvn"`
	Lengths []int    `json:"lengths"`
	Ranges  [][2]int `json:"ranges"`
	Taken   bool     `json:"taken"`
}

// framePage is what the card form's template shows.
type framePage struct {
	Settings             frameSettings
	Script, Styles       string
	Amount, Currency     string
	Accepted             []string
	Billing              string
	Email, Phone, Street bool
	TestCards            []TestCard
}

// hintCards are the test cards that the form offers to fill in, with short labels.
var hintCards = []struct{ Number, Label string }{
	{"4111111111111111", "Approved"}, {"4000000000000002", "Declined"}, {"4000000000009995", "Insufficient funds"},
	{"4000000000009235", "In review"}, {"5105105105105100", "Answer lost"},
}

var framePageTemplate = template.Must(template.New("frame.html").ParseFS(webFiles, "web/frame.html"))

// serveFrame shows the card form. Only the context's target origins may frame it.
func (s *Simulator) serveFrame(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	f := s.frames[r.PathValue("id")]
	s.mu.Unlock()
	if f == nil {
		http.NotFound(w, r)
		return
	}
	req := f.context.request
	amounts := req.Data.OrderInformation.AmountDetails
	total, err := parseAmount(amounts.TotalAmount, amounts.Currency)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	email := req.CaptureMandate.RequestEmail
	billing := req.CaptureMandate.BillingType
	page := framePage{
		Settings: frameSettings{Frame: f.id, Origin: f.origin, Country: req.Country},
		Script:   assetPath("frame.js"), Styles: assetPath("frame.css"),
		Amount: total.in(amounts.Currency), Currency: amounts.Currency, Billing: billing,
		Email:  email != nil && *email || email == nil && billing == "FULL",
		Phone:  req.CaptureMandate.RequestPhone,
		Street: billing == "FULL",
	}
	for _, b := range brands {
		taken := slices.Contains(req.AllowedCardNetworks, b.Name)
		if taken {
			page.Accepted = append(page.Accepted, b.Label)
		}
		page.Settings.Networks = append(page.Settings.Networks, frameNetwork{b.Name, b.Label, b.CVN, b.lengths, b.ranges, taken})
	}
	for _, c := range hintCards {
		if b, _ := brandOf(c.Number); slices.Contains(req.AllowedCardNetworks, b.Name) {
			page.TestCards = append(page.TestCards, TestCard{Number: c.Number, Label: c.Label})
		}
	}
	var body strings.Builder
	if err := framePageTemplate.Execute(&body, page); err != nil {
		s.log.Error("card form not shown", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors %s", strings.Join(req.TargetOrigins, " ")))
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: body.String(), contentType: "text/html; charset=utf-8"})
}

// completeRequest lets the widget pay by itself, where the context has a mandate for it.
type completeRequest struct {
	Frame          string `json:"frame"`
	TransientToken string `json:"transientToken"`
}

// readComplete pays as the context's complete mandate says. The amount is the context's, so the
// browser cannot change it.
func (s *Simulator) readComplete(c *call) (string, operation, *answer) {
	var req completeRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		a := flexRefusal(c, "COMPLETE_VALIDATION_ERROR", "The request could not be read", fieldError{jsonField(err), "is not of the expected type"})
		return "", nil, &a
	}
	s.mu.Lock()
	f := s.frames[req.Frame]
	s.mu.Unlock()
	if f == nil || c.r.Header.Get("Origin") != f.origin {
		a := flexRefusal(c, "CAPTURE_CONTEXT_INVALID", "The checkout is not known to this page")
		return "", nil, &a
	}
	session := f.context.request
	ref := session.Data.ClientReferenceInformation
	if session.CompleteMandate == nil {
		a := flexRefusal(c, "COMPLETE_NOT_ALLOWED", "The capture context has no complete mandate")
		return ref.Code, nil, &a
	}
	payment := &paymentRequest{ClientReferenceInformation: ref, OrderInformation: session.Data.OrderInformation}
	payment.TokenInformation.TransientTokenJWT = req.TransientToken
	payment.ProcessingInformation.Capture = session.CompleteMandate.Type != "AUTH"
	if session.CompleteMandate.ConsumerAuthentication == "3DS" {
		// The challenge has run inside the widget; what is left is its result.
		payment.ProcessingInformation.ActionList = []string{"VALIDATE_CONSUMER_AUTHENTICATION"}
		payment.ConsumerAuthenticationInformation.AuthenticationTransactionID = f.id
	}
	return ref.Code, func(commit bool) (answer, bool) {
		a, ok := s.pay(f.context.merchant, payment, nil, commit)
		if !ok {
			return flexRefusal(c, "COMPLETE_VALIDATION_ERROR", "The payment was refused before it was tried"), false
		}
		if !commit {
			return answer{}, true
		}
		return s.completion(c, f.context.merchant.id, ref.Code, a), true
	}, nil
}

// completion turns a payment's answer into what the widget gives its page: a signed result, or an error.
// The merchant is notified of a result. The caller holds the lock.
func (s *Simulator) completion(c *call, merchant, code string, a answer) answer {
	body, _ := a.body.(object) // pay always answers with one
	status, _ := body["status"].(string)
	reason := ""
	if info, failed := body["errorInformation"].(object); failed {
		reason, _ = info["reason"].(string)
	}
	switch {
	case status == statusPendingAuthentication || reason == "CONSUMER_AUTHENTICATION_FAILED":
		return flexRefusal(c, "COMPLETE_AUTHENTICATION_FAILED", "The cardholder could not be authenticated")
	case status == statusDeclined || status == statusInvalid:
		return flexRefusal(c, "COMPLETE_TRANSACTION_FAILED", "The card was declined")
	case a.status != http.StatusCreated:
		failed := flexRefusal(c, "COMPLETE_ERROR", "The outcome is not known")
		failed.status = a.status
		return failed
	}
	now := s.now()
	details := object{"submitTimeUtc": stamp(now)}
	for _, name := range []string{"clientReferenceInformation", "orderInformation", "processorInformation", "reconciliationId"} {
		details[name] = body[name]
	}
	outcome := statusAuthorized
	if status == statusPending || status == statusPendingReview {
		outcome = statusPending
	}
	told := object{"id": body["id"], "status": status, "outcome": outcome, "message": "Request processed successfully.", "details": details}
	s.announceResult(merchant, code, told)
	claims := jwt.MapClaims{"iat": now.Unix(), "exp": now.Add(15 * time.Minute).Unix()}
	maps.Copy(claims, told)
	result, err := signRS256(s.signing.kid, s.signing.key, claims)
	if err != nil {
		s.log.Error("result not signed", "error", err)
		return answer{status: http.StatusInternalServerError}
	}
	return answer{status: http.StatusCreated, body: object{"result": result}}
}
