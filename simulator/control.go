package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"paythread/simulator/clickatell"
	"paythread/simulator/faults"
	"paythread/simulator/meta"
)

// longestControl is how many bytes a control call may have.
const longestControl = 1 << 20

// longestWebhook is how many bytes an injected webhook may have: Meta's reach 3 MB,
// Clickatell's carry a whole file.
const longestWebhook = 32 << 20

// control puts the control API on the mux.
func (w *World) control() {
	w.mux.HandleFunc("GET /phones", func(rw http.ResponseWriter, r *http.Request) {
		writeJSON(rw, http.StatusOK, map[string]any{"phones": w.Phones.Numbers()})
	})
	phone := func(method, action string, h func(http.ResponseWriter, *http.Request, string) error) {
		w.mux.HandleFunc(method+" /phones/{e164}/"+action, func(rw http.ResponseWriter, r *http.Request) {
			e164, err := ParseNumber(r.PathValue("e164"))
			if err == nil {
				err = h(rw, r, e164)
			}
			if err != nil {
				writeProblem(rw, err)
			}
		})
	}
	phone("GET", "messages", w.getMessages)
	phone("POST", "messages", w.postMessage)
	phone("POST", "read", w.postRead)
	phone("POST", "block", w.postBlock)
	phone("POST", "unreachable", w.postUnreachable)
	phone("POST", "whatsapp", w.postWhatsApp)

	w.mux.HandleFunc("GET /faults", w.getFaults)
	w.mux.HandleFunc("PUT /faults", w.putFaults)
	w.mux.HandleFunc("DELETE /faults", func(rw http.ResponseWriter, r *http.Request) {
		w.Faults.Clear()
		rw.WriteHeader(http.StatusNoContent)
	})
	w.mux.HandleFunc("POST /faults/{id}/release", w.releaseFault)
	w.mux.HandleFunc("GET /calls", w.getCalls)
	w.mux.HandleFunc("POST /meta/verify", w.verifyMeta)
	w.mux.HandleFunc("POST /meta/webhooks/{pnid}", w.injectMeta)
	w.mux.HandleFunc("POST /clickatell/webhooks/{integration}", w.injectClickatell)
}

// problem is an RFC 9457 problem document.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
}

func (p problem) write(w http.ResponseWriter) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have gone
}

func writeProblem(w http.ResponseWriter, err error) {
	var input *InputError
	var rule *faults.RuleError
	switch {
	case errors.As(err, &input) && input.Field == "":
		problem{Status: http.StatusConflict, Detail: input.Reason}.write(w)
	case errors.As(err, &input):
		problem{Status: http.StatusBadRequest, Detail: input.Error(), Field: input.Field}.write(w)
	case errors.As(err, &rule):
		problem{Status: http.StatusBadRequest, Detail: rule.Error(), Field: fmt.Sprintf("[%d].%s", rule.Index, rule.Field)}.write(w)
	default:
		problem{Status: http.StatusInternalServerError, Detail: err.Error()}.write(w)
	}
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

// readBody decodes a control call strictly, so that a misspelt member is an error
// instead of being passed over. An empty body leaves the defaults.
func readBody(w http.ResponseWriter, r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, longestControl))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.As(err, &kind):
		return wrong(orBody(kind.Field), "must not be a JSON %s", kind.Value)
	case err != nil && strings.Contains(err.Error(), "unknown field"):
		_, name, _ := strings.Cut(err.Error(), "unknown field ")
		return wrong(strings.Trim(name, `"`), "is no member of this call")
	case err != nil:
		return wrong("body", "is not JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return wrong("body", "has something behind its JSON")
	}
	return nil
}

func orBody(field string) string {
	if field == "" {
		return "body"
	}
	return field
}

// phoneState is all that a phone shows.
type phoneState struct {
	Messages    []Message `json:"messages"`
	Contacts    []Contact `json:"contacts"`
	Unreachable bool      `json:"unreachable"`
}

func (w *World) stateOf(e164 string) phoneState {
	return phoneState{w.Phones.Messages(e164), w.Phones.Contacts(e164), w.Phones.Unreachable(e164)}
}

func (w *World) getMessages(rw http.ResponseWriter, r *http.Request, e164 string) error {
	writeJSON(rw, http.StatusOK, w.stateOf(e164))
	return nil
}

func (w *World) postMessage(rw http.ResponseWriter, r *http.Request, e164 string) error {
	var in struct {
		Channel   string  `json:"channel"`
		Text      *string `json:"text"`
		To        string  `json:"to"`
		Button    *string `json:"button"`
		MessageID string  `json:"messageId"`
	}
	if err := readBody(rw, r, &in); err != nil {
		return err
	}
	var id string
	var err error
	switch {
	case in.Text != nil && in.Button != nil:
		err = wrong("button", "cannot come together with text")
	case in.Button != nil && *in.Button == "":
		err = wrong("button", "is empty")
	case in.Button != nil:
		id, err = w.Phones.Press(e164, in.Channel, *in.Button, in.MessageID)
	case in.MessageID != "":
		err = wrong("messageId", "comes with button only")
	case in.Text == nil:
		err = wrong("text", "is missing")
	default:
		id, err = w.Phones.Say(e164, in.Channel, in.To, *in.Text)
	}
	if err != nil {
		return err
	}
	writeJSON(rw, http.StatusCreated, map[string]string{"id": id})
	return nil
}

func (w *World) postRead(rw http.ResponseWriter, r *http.Request, e164 string) error {
	var in struct {
		Channel string `json:"channel"`
		From    string `json:"from"`
	}
	if err := readBody(rw, r, &in); err != nil {
		return err
	}
	if in.From != "" {
		from, err := ParseNumber(in.From)
		if err != nil {
			return wrong("from", "must be a phone number")
		}
		in.From = from
	}
	return done(rw, w.Phones.Read(e164, in.Channel, in.From))
}

func done(rw http.ResponseWriter, err error) error {
	if err == nil {
		rw.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (w *World) postBlock(rw http.ResponseWriter, r *http.Request, e164 string) error {
	var in struct {
		Channel string `json:"channel"`
		On      *bool  `json:"on"`
	}
	if err := readBody(rw, r, &in); err != nil {
		return err
	}
	if in.On == nil {
		return wrong("on", "is missing")
	}
	return done(rw, w.Phones.Block(e164, in.Channel, *in.On))
}

func (w *World) postUnreachable(rw http.ResponseWriter, r *http.Request, e164 string) error {
	var in struct {
		On *bool `json:"on"`
	}
	if err := readBody(rw, r, &in); err != nil {
		return err
	}
	if in.On == nil {
		return wrong("on", "is missing")
	}
	w.Phones.SwitchOff(e164, *in.On)
	return done(rw, nil)
}

func (w *World) postWhatsApp(rw http.ResponseWriter, r *http.Request, e164 string) error {
	var in struct {
		On         *bool  `json:"on"`
		Name       string `json:"name"`
		Username   string `json:"username"`
		HideNumber bool   `json:"hideNumber"`
		WaID       string `json:"waId"`
	}
	if err := readBody(rw, r, &in); err != nil {
		return err
	}
	if in.On == nil {
		return wrong("on", "is missing")
	}
	return done(rw, w.Phones.SetAccount(e164, Account{
		On: *in.On, Name: in.Name, Username: in.Username, HideNumber: in.HideNumber, WaID: in.WaID,
	}))
}

func (w *World) getFaults(rw http.ResponseWriter, r *http.Request) {
	writeJSON(rw, http.StatusOK, w.Faults.Rules())
}

func (w *World) putFaults(rw http.ResponseWriter, r *http.Request) {
	var rules []faults.Rule
	err := readBody(rw, r, &rules)
	if err == nil && rules == nil {
		err = wrong("body", "must be an array of rules")
	}
	if err == nil {
		err = w.Faults.Replace(rules)
	}
	if err != nil {
		writeProblem(rw, err)
		return
	}
	writeJSON(rw, http.StatusOK, w.Faults.Rules())
}

func (w *World) releaseFault(rw http.ResponseWriter, r *http.Request) {
	if !w.Faults.Release(r.PathValue("id")) {
		problem{Status: http.StatusNotFound, Detail: "there is no rule with this id"}.write(rw)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

func (w *World) getCalls(rw http.ResponseWriter, r *http.Request) {
	calls := []faults.Call{}
	for _, c := range w.Faults.Calls() {
		if strings.HasPrefix(c.Call, r.URL.Query().Get("call")) {
			calls = append(calls, c)
		}
	}
	writeJSON(rw, http.StatusOK, map[string]any{"calls": calls})
}

func (w *World) verifyMeta(rw http.ResponseWriter, r *http.Request) {
	if err := w.Meta.VerifyWebhook(r.Context()); err != nil {
		problem{Status: http.StatusBadGateway, Detail: err.Error()}.write(rw)
		return
	}
	rw.WriteHeader(http.StatusNoContent)
}

// injectMeta posts the body as a webhook of Meta's, and answers with what the
// business answered.
func (w *World) injectMeta(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, longestWebhook))
	if err != nil {
		writeProblem(rw, wrong("body", "cannot be read, or is larger than Meta's webhooks"))
		return
	}
	status, err := w.Meta.Inject(r.Context(), r.PathValue("pnid"), body)
	switch {
	case errors.Is(err, meta.ErrNoSuchNumber):
		problem{Status: http.StatusNotFound, Detail: "no number with a webhook has this id"}.write(rw)
	case errors.Is(err, meta.ErrNotJSON):
		writeProblem(rw, wrong("body", "is not JSON"))
	default:
		writeJSON(rw, http.StatusOK, map[string]int{"status": status})
	}
}

// injectClickatell posts the body as a callback of Clickatell's, and answers with
// what the business answered.
func (w *World) injectClickatell(rw http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if to != "" && to != "reply" && to != "status" {
		writeProblem(rw, wrong("to", "must be reply or status"))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, longestWebhook))
	if err != nil {
		writeProblem(rw, wrong("body", "cannot be read, or is larger than Clickatell's callbacks"))
		return
	}
	status, err := w.Clickatell.Inject(r.Context(), r.PathValue("integration"), to == "status", body)
	switch {
	case errors.Is(err, clickatell.ErrNoSuchCallback):
		problem{Status: http.StatusNotFound, Detail: "no integration with such a callback address has this id"}.write(rw)
	case errors.Is(err, clickatell.ErrNotJSON):
		writeProblem(rw, wrong("body", "is not JSON"))
	default:
		writeJSON(rw, http.StatusOK, map[string]int{"status": status})
	}
}
