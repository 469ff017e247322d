package simulator_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"paythread/simulator"
	"paythread/simulator/cybersource"
	"paythread/simulator/faults"
)

// clientCall is one call that testdata/cybersource.js makes with CyberSource's
// own library, and what it is to come to.
type clientCall struct {
	Name      string `json:"name"`
	API       string `json:"api"`
	Method    string `json:"method"`
	Arguments []any  `json:"arguments"`

	status int
	word   string // the status in the body; empty where there is none
}

// clientResult is what a call came to.
type clientResult struct {
	Status int             `json:"status"`
	Data   json.RawMessage `json:"data"`
}

type fields = map[string]any

// sandbox is CyberSource in a world that is served over https.
type sandbox struct {
	host      string // localhost:port
	authority string // the file that a client trusts
	sim       *cybersource.Simulator
}

const (
	sandboxMerchant = "testmerchant01"
	sandboxKeyID    = "11111111-2222-3333-4444-555555555555"
	sandboxSecret   = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
)

func newSandbox(t *testing.T) sandbox {
	t.Helper()
	dir := t.TempDir()
	certificate, err := simulator.LocalCertificate(dir, time.Now(), "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	s := sandbox{host: "localhost:" + port, authority: filepath.Join(dir, simulator.AuthorityFile)}
	set := faults.New()
	s.sim, err = cybersource.New(cybersource.Config{
		PublicURL: "https://" + s.host, SearchDelay: -1, SharedKeys: 1, AllowHTTPOrigins: true,
		Merchants: []cybersource.Merchant{{ID: sandboxMerchant, KeyID: sandboxKeyID, SharedSecret: sandboxSecret}},
	}, set)
	if err != nil {
		t.Fatal(err)
	}
	world, err := simulator.New(simulator.Config{PublicURL: "https://" + s.host, Faults: set, Parts: []simulator.Registrar{s.sim}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	server.Config.Handler = world.Handler()
	server.StartTLS()
	t.Cleanup(server.Close)
	return s
}

// client makes the calls with CyberSource's official library for Node.js. A
// missing one fails the test: nothing else here was not written by us.
func (s sandbox) client(t *testing.T, authentication, secret string, calls []clientCall) map[string]clientResult {
	t.Helper()
	const install = "install what the tests need with scripts/install-test-tools"
	modules, err := filepath.Abs(filepath.Join("..", "scripts", "testclients", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "cybersource-rest-client", "package.json")); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("CyberSource's library for Node.js is missing: %s", install)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is missing: %s", install)
	}
	input, err := json.Marshal(fields{
		"host": s.host, "authentication": authentication, "merchant": sandboxMerchant, "keyId": sandboxKeyID, "secret": secret, "calls": calls,
	})
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs(filepath.Join("testdata", "cybersource.js"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, script)
	cmd.Dir = t.TempDir() // the library may want to write a log
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules, "NODE_EXTRA_CA_CERTS="+s.authority)
	cmd.Stdin = bytes.NewReader(input)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("cybersource.js: %v\n%s", err, complaint.Bytes())
	}
	var results map[string]clientResult
	if err := json.Unmarshal(output, &results); err != nil || len(results) != len(calls) {
		t.Fatalf("cybersource.js: %d results of %d calls: %v\n%s", len(results), len(calls), err, complaint.Bytes())
	}
	return results
}

// word is the status in a body, if it has one.
func (r clientResult) word() string {
	var body struct{ Status string }
	_ = json.Unmarshal(r.Data, &body) // a body that is no object has none
	return body.Status
}

func amount(total string) fields { return fields{"totalAmount": total, "currency": "ZAR"} }

func ordered(total string) fields {
	return fields{"orderInformation": fields{"amountDetails": amount(total)}}
}

func withCode(code string, body fields) fields {
	body["clientReferenceInformation"] = fields{"code": code}
	return body
}

// payCalls make a session, a token of an approved card, and a payment with it,
// called session-n, card-n and n.
func payCalls(n, code, total string, capture bool) []clientCall {
	session := fields{
		"targetOrigins": []string{"https://pay.example.test"}, "country": "ZA", "locale": "en_GB",
		"allowedCardNetworks": []string{"VISA"}, "allowedPaymentTypes": []string{"PANENTRY"},
		"data": withCode(code, ordered(total)),
	}
	payment := withCode(code, ordered(total))
	payment["clientReferenceInformation"].(fields)["transactionId"] = "tx" + strings.ReplaceAll(code, "-", "")
	payment["processingInformation"] = fields{"capture": capture, "commerceIndicator": "internet"}
	payment["tokenInformation"] = fields{"transientTokenJwt": "$card-" + n}
	return []clientCall{
		{"session-" + n, "UnifiedCheckoutV1CaptureContextApi", "generateUnifiedCheckoutV1CaptureContext", []any{session}, 201, ""},
		{"card-" + n, "card", "", []any{fields{"captureContext": "$session-" + n, "card": fields{
			"number": "4111111111111111", "expirationMonth": "12", "expirationYear": fmt.Sprint(time.Now().Year() + 2), "securityCode": "123",
		}}}, 201, ""},
		{n, "PaymentsApi", "createPayment", []any{payment}, 201, "AUTHORIZED"},
	}
}

// TestOfficialLibrary: CyberSource's own library for Node.js does everything
// that a merchant does, over https, with both ways to authenticate, against a
// host with a port. What it signs is taken, and what it is answered it reads.
func TestOfficialLibrary(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	for _, authentication := range []string{"http_signature", "jwt"} {
		t.Run(authentication, func(t *testing.T) {
			t.Parallel()
			code := func(name string) string { return authentication + "-" + name }
			reversal := withCode(code("hold"), fields{"reversalInformation": fields{"amountDetails": amount("30.00"), "reason": "cancelled"}})
			byReference := fields{
				"clientReferenceInformation": fields{"transactionId": "tx" + strings.ReplaceAll(code("lost"), "-", "")},
				"reversalInformation":        fields{"amountDetails": amount("40.00"), "reason": "timeout"},
			}
			search := fields{
				"save": false, "name": "audit", "timezone": "Africa/Johannesburg", "offset": 0, "limit": 1, "sort": "submitTimeUtc:desc",
				"query": "clientReferenceInformation.code:" + code("sale") + " AND submitTimeUtc:[NOW/DAY-1DAYS TO NOW/DAY+1DAY}",
			}
			key := fields{"clientRequestAction": "CREATE", "keyInformation": fields{
				"provider": "nrtd", "tenant": sandboxMerchant, "keyType": "sharedSecret", "organizationId": sandboxMerchant, "expiryDuration": "365",
			}}
			var calls []clientCall
			add := func(c ...clientCall) { calls = append(calls, c...) }
			add(payCalls("sale", code("sale"), "10.00", true)...)
			add(payCalls("auth", code("auth"), "20.00", false)...)
			add(payCalls("hold", code("hold"), "30.00", false)...)
			add(payCalls("lost", code("lost"), "40.00", false)...)
			add(payCalls("void", code("void"), "50.00", true)...)
			add(
				clientCall{"found", "SearchTransactionsApi", "createSearch", []any{search}, 201, "COMPLETED"},
				clientCall{"found again", "SearchTransactionsApi", "getSearch", []any{"$found.searchId"}, 200, "COMPLETED"},
				clientCall{"details", "TransactionDetailsApi", "getTransaction", []any{"$sale.id"}, 200, ""},
				clientCall{"nothing", "TransactionDetailsApi", "getTransaction", []any{"7000000000000000000000"}, 404, "NOT_FOUND"},
				clientCall{"refund", "RefundApi", "refundPayment", []any{withCode(code("refund"), ordered("4.00")), "$sale.id"}, 201, "PENDING"},
				clientCall{"too much", "RefundApi", "refundPayment", []any{withCode(code("refund"), ordered("6.01")), "$sale.id"}, 400, "INVALID_REQUEST"},
				clientCall{"capture", "CaptureApi", "capturePayment", []any{withCode(code("capture"), ordered("20.00")), "$auth.id"}, 201, "PENDING"},
				clientCall{"refund of it", "RefundApi", "refundCapture", []any{withCode(code("back"), ordered("20.00")), "$capture.id"}, 201, "PENDING"},
				clientCall{"void of that", "VoidApi", "voidRefund", []any{withCode(code("undo"), fields{}), "$refund of it.id"}, 201, "VOIDED"},
				clientCall{"void of it", "VoidApi", "voidCapture", []any{withCode(code("undo"), fields{}), "$capture.id"}, 201, "VOIDED"},
				clientCall{"release", "ReversalApi", "authReversal", []any{"$hold.id", reversal}, 201, "REVERSED"},
				clientCall{"again", "ReversalApi", "authReversal", []any{"$hold.id", reversal}, 400, "INVALID_REQUEST"},
				clientCall{"by reference", "ReversalApi", "mitReversal", []any{byReference}, 201, "REVERSED"},
				clientCall{"voided", "VoidApi", "voidPayment", []any{withCode(code("undo"), fields{}), "$void.id"}, 201, "VOIDED"},
				clientCall{"products", "CreateNewWebhooksApi", "findProductsToSubscribe", []any{sandboxMerchant}, 200, ""},
				clientCall{"key", "CreateNewWebhooksApi", "saveSymEgressKey", []any{fields{"saveSymEgressKey": key}}, 201, "SUCCESS"},
			)
			results := s.client(t, authentication, sandboxSecret, calls)
			for _, c := range calls {
				if r := results[c.Name]; r.Status != c.status || r.word() != c.word {
					t.Errorf("%s: got %d %s, want %d %s", c.Name, r.Status, r.Data, c.status, c.word)
				}
			}
			if t.Failed() {
				return
			}
			var found struct {
				TotalCount int
				Embedded   struct {
					Summaries []struct{ ID string } `json:"transactionSummaries"`
				} `json:"_embedded"`
			}
			var sale struct{ ID string }
			if err := errors.Join(json.Unmarshal(results["found"].Data, &found), json.Unmarshal(results["sale"].Data, &sale)); err != nil {
				t.Fatal(err)
			}
			if found.TotalCount != 1 || len(found.Embedded.Summaries) != 1 || found.Embedded.Summaries[0].ID != sale.ID {
				t.Errorf("search: got %s", results["found"].Data)
			}
			var books []string
			for _, tr := range s.sim.Transactions() {
				if strings.HasPrefix(tr.Code, authentication+"-") {
					books = append(books, strings.TrimPrefix(tr.Code, authentication+"-")+" "+tr.Kind+" "+tr.Amount)
				}
			}
			if got := strings.Join(books, ", "); !strings.Contains(got, "refund refund 4.00, capture capture 20.00, back refund 20.00, undo void 20.00, undo void 20.00, hold reversal 30.00, lost reversal 40.00, undo void 50.00") {
				t.Errorf("the books: got %s", got)
			}
		})
	}
}

// TestOfficialLibraryWithAWrongKey: neither way of the library gets in with
// another key's signature.
func TestOfficialLibraryWithAWrongKey(t *testing.T) {
	t.Parallel()
	s := newSandbox(t)
	const wrong = "YW5vdGhlciBtZXJjaGFudCdzIGtleSwgdGhpcyBpcyE="
	for _, authentication := range []string{"http_signature", "jwt"} {
		calls := []clientCall{
			{Name: "details", API: "TransactionDetailsApi", Method: "getTransaction", Arguments: []any{"7000000000000000000000"}},
			{Name: "capture", API: "CaptureApi", Method: "capturePayment", Arguments: []any{ordered("1.00"), "7000000000000000000000"}},
		}
		for name, r := range s.client(t, authentication, wrong, calls) {
			if r.Status != 401 || !strings.Contains(string(r.Data), "Authentication Failed") {
				t.Errorf("%s, %s: got %d %s, want 401", authentication, name, r.Status, r.Data)
			}
		}
	}
}
