package main

import (
	"bytes"
	"strings"
	"testing"
)

// audit runs "paythread audit" on a rig's configuration.
func (s *rig) audit(more ...string) (code int, table string) {
	s.t.Helper()
	var out, problems bytes.Buffer
	args := append([]string{"audit", "--config", s.config, "--merchant", "acme"}, more...)
	code = run(s.t.Context(), args, strings.NewReader(""), &out, &problems, s.env)
	if code == exitUsage || out.Len() == 0 {
		s.t.Fatalf("audit: exit code %d: %s", code, problems.String())
	}
	return code, out.String()
}

// TestAuditFindsWhatNobodyTold: a refund that somebody made at the platform,
// without a notification, shows in the command and is learnt by the audit, once.
func TestAuditFindsWhatNobodyTold(t *testing.T) {
	t.Parallel()
	s := newRig(t, aPlainRedis(t), func(o *rigOptions) { o.Env["AUDIT_EVERY"] = "1s" })
	g := s.startGateway()
	id, err := s.ask(asked{Order: "audit-1", Phone: demoCustomer, Channel: "sms", Amount: "149.00"})
	s.must(err)
	c := s.payer(demoCustomer, "sms")
	s.await("the link on the phone", func() bool { return c.follow("/p/") == nil })
	s.must(c.open())
	_, err = c.pay(panApproved)
	s.must(err)
	s.awaitLifecycle(id, "paid")
	s.awaitIdle()
	g.kill()
	var table string
	s.await("the payment on both sides, and nothing else", func() bool {
		var code int
		code, table = s.audit("--since", "1h")
		return code == exitOK && strings.Contains(table, "payment 1  ZAR 149.00  captured  captured")
	})
	_, err = s.world.CyberSource.BackOffice("refund", s.charges().Standing[0].ID, "30.00")
	s.must(err)
	s.await("the refund as a difference", func() bool {
		var code int
		code, table = s.audit()
		return code == exitFailed && strings.Contains(table, "they did it, we do not know of it")
	})
	if !strings.Contains(table, id) || !strings.Contains(table, "ZAR 30.00") {
		t.Errorf("the table says\n%s", table)
	}
	s.startGateway()
	s.awaitLifecycle(id, "partially_refunded")
	s.await("both sides to agree", func() bool { code, _ := s.audit(); return code == exitOK })
	types := strings.Join(s.eventTypes(id), " ")
	if n := strings.Count(types, "refunded"); n != 1 {
		t.Errorf("refunded %d times: %s", n, types)
	}
	r := s.request(id)
	if len(r.Operations) != 1 || r.Totals["refunded"].Value != "30.00" || r.Totals["refundable"].Value != "119.00" {
		t.Errorf("the payment request says %+v", r)
	}
}

func TestAuditCommandWantsAMerchant(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"--merchant ID is missing": {"--config", "x.yaml"},
		"--since wants a time":     {"--config", "x.yaml", "--merchant", "acme", "--since", "0s"},
		"--config FILE is missing": {"--merchant", "acme"},
	} {
		var out, problems bytes.Buffer
		if code := run(t.Context(), append([]string{"audit"}, args...), strings.NewReader(""), &out, &problems, nil); code != exitUsage || !strings.Contains(problems.String(), name) {
			t.Errorf("%v: exit code %d: %s", args, code, problems.String())
		}
	}
}
