package simulator

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"time"
)

//go:embed web
var web embed.FS

var pageTemplates = template.Must(template.ParseFS(web, "web/*.html"))

// pagePolicy lets the pages use nothing but their own files and calls. They may
// be framed by this server only.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; " +
	"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"

// streamBeat is how often an idle stream says that it is alive.
const streamBeat = 15 * time.Second

func (w *World) pages() {
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the folder is embedded
	}
	assets := http.StripPrefix("/phone-assets/", http.FileServerFS(files))
	w.mux.HandleFunc("GET /phone-assets/{file}", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Cache-Control", "no-cache") // a new build must not meet an old script
		rw.Header().Set("X-Content-Type-Options", "nosniff")
		assets.ServeHTTP(rw, r)
	})
	w.mux.HandleFunc("GET /{$}", w.getStart)
	w.mux.HandleFunc("GET /phone/{$}", w.getPhones)
	w.mux.HandleFunc("GET /phone/{e164}", w.getPhone)
	w.mux.HandleFunc("GET /phone/{e164}/changes", w.getChanges)
}

// render writes a page whole, or not at all.
func (w *World) render(rw http.ResponseWriter, status int, name string, data any) {
	var page bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&page, name, data); err != nil {
		w.cfg.Log.Error("simulator page failed", "page", name, "error", err)
		http.Error(rw, "The page could not be made.", http.StatusInternalServerError)
		return
	}
	h := rw.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_, _ = page.WriteTo(rw) // the client may have gone
}

func (w *World) getStart(rw http.ResponseWriter, r *http.Request) {
	w.render(rw, http.StatusOK, "start.html", map[string]any{
		"Title": cmp.Or(w.cfg.Title, "The world outside"), "Steps": w.cfg.Steps, "Links": w.cfg.Links, "Phones": w.phoneLinks(),
	})
}

type phoneLink struct{ Number, URL string }

func (w *World) phoneLinks() []phoneLink {
	var links []phoneLink
	for _, number := range w.Phones.Numbers() {
		links = append(links, phoneLink{number, w.phoneLink(number)})
	}
	return links
}

// getPhones asks for a number, and goes to its phone when there is one.
func (w *World) getPhones(rw http.ResponseWriter, r *http.Request) {
	data := map[string]any{"Phones": w.phoneLinks(), "Number": "", "Error": ""}
	status := http.StatusOK
	if number := r.URL.Query().Get("number"); number != "" {
		e164, err := ParseNumber(number)
		if err == nil {
			http.Redirect(rw, r, w.phoneLink(e164), http.StatusSeeOther)
			return
		}
		status = http.StatusBadRequest
		data["Number"], data["Error"] = number, "Enter the number with its country code, such as +16505551234."
	}
	w.render(rw, status, "phones.html", data)
}

func (w *World) getPhone(rw http.ResponseWriter, r *http.Request) {
	e164, err := ParseNumber(r.PathValue("e164"))
	if err != nil {
		w.render(rw, http.StatusNotFound, "phones.html", map[string]any{"Phones": w.phoneLinks(),
			"Number": r.PathValue("e164"), "Error": "This is not a phone number. Enter one with its country code, such as +16505551234."})
		return
	}
	w.render(rw, http.StatusOK, "phone.html", map[string]any{"Number": e164, "State": w.stateOf(e164)})
}

// getChanges tells the page, as server-sent events, that it should ask again. The
// first event comes at once, so that a page that lost its connection catches up.
func (w *World) getChanges(rw http.ResponseWriter, r *http.Request) {
	e164, err := ParseNumber(r.PathValue("e164"))
	if err != nil {
		writeProblem(rw, err)
		return
	}
	rw.Header().Set("Content-Type", "text/event-stream")
	rw.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(rw)
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	version, next := w.Phones.Changes(e164)
	line := fmt.Sprintf("data: %d\n\n", version)
	for {
		if _, err := fmt.Fprint(rw, line); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-w.closing.Done():
			return
		case <-r.Context().Done():
			return
		case <-beat.C:
			line = ": alive\n\n"
		case <-next:
			version, next = w.Phones.Changes(e164)
			line = fmt.Sprintf("data: %d\n\n", version)
		}
	}
}
