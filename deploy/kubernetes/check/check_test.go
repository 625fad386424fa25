package check

import (
	"bytes"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const namespace = "iad-lab"

type manifests struct {
	namespaces []corev1.Namespace
	secrets    []corev1.Secret
	services   []corev1.Service
	sets       []appsv1.StatefulSet
	budgets    []policyv1.PodDisruptionBudget
	policies   []networkingv1.NetworkPolicy
}

// read renders the manifests as "kubectl apply -k" does, and decodes them with the types of the API; a field that these do not
// have is an error.
func read(t *testing.T) *manifests {
	t.Helper()
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "..")
	if err != nil {
		t.Fatal(err)
	}
	var m manifests
	for _, resource := range rendered.Resources() {
		text, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		kind := resource.GetApiVersion() + " " + resource.GetKind()
		switch kind {
		case "v1 Namespace":
			m.namespaces = add(t, m.namespaces, text)
		case "v1 Secret":
			m.secrets = add(t, m.secrets, text)
		case "v1 Service":
			m.services = add(t, m.services, text)
		case "apps/v1 StatefulSet":
			m.sets = add(t, m.sets, text)
		case "policy/v1 PodDisruptionBudget":
			m.budgets = add(t, m.budgets, text)
		case "networking.k8s.io/v1 NetworkPolicy":
			m.policies = add(t, m.policies, text)
		default:
			t.Errorf("%s: a kind that this test does not know", kind)
		}
		if kind != "v1 Namespace" && resource.GetNamespace() != namespace {
			t.Errorf("%s %s is in namespace %q", kind, resource.GetName(), resource.GetNamespace())
		}
	}
	if len(m.sets) == 0 || len(m.services) == 0 || len(m.budgets) == 0 || len(m.policies) == 0 || len(m.secrets) == 0 {
		t.Fatalf("too few objects: %+v", m)
	}
	return &m
}

func add[T any](t *testing.T, list []T, text []byte) []T {
	t.Helper()
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	return append(list, object)
}

// pods returns the sets whose pods a selector selects.
func (m *manifests) pods(t *testing.T, selector *metav1.LabelSelector) (found []appsv1.StatefulSet) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range m.sets {
		if !s.Empty() && s.Matches(labels.Set(set.Spec.Template.Labels)) {
			found = append(found, set)
		}
	}
	return found
}

func TestSelectorsAndPorts(t *testing.T) {
	m := read(t)
	for _, service := range m.services {
		sets := m.pods(t, metav1.SetAsLabelSelector(service.Spec.Selector))
		if len(sets) != 1 {
			t.Errorf("service %s selects %d sets, want 1", service.Name, len(sets))
			continue
		}
		for _, port := range service.Spec.Ports {
			if !slices.ContainsFunc(sets[0].Spec.Template.Spec.Containers, func(c corev1.Container) bool {
				return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
					return p.Name == port.TargetPort.String() && p.Protocol == port.Protocol && p.ContainerPort == port.Port
				})
			}) {
				t.Errorf("service %s: no container has port %s", service.Name, port.TargetPort.String())
			}
		}
	}
	for _, set := range m.sets {
		if found := m.pods(t, set.Spec.Selector); len(found) != 1 || found[0].Name != set.Name {
			t.Errorf("set %s does not select exactly its own pods", set.Name)
		}
		if !slices.ContainsFunc(m.services, func(s corev1.Service) bool { return s.Name == set.Spec.ServiceName && s.Spec.ClusterIP == "None" }) {
			t.Errorf("set %s: no headless service %q", set.Name, set.Spec.ServiceName)
		}
	}
	for _, budget := range m.budgets {
		if len(m.pods(t, budget.Spec.Selector)) != 1 {
			t.Errorf("disruption budget %s selects no set, or several", budget.Name)
		}
	}
	limited := map[string]bool{}
	for _, p := range m.policies {
		for _, set := range m.pods(t, &p.Spec.PodSelector) {
			limited[set.Name] = true
		}
		var peers []networkingv1.NetworkPolicyPeer
		for _, rule := range p.Spec.Ingress {
			peers = append(peers, rule.From...)
		}
		for _, rule := range p.Spec.Egress {
			peers = append(peers, rule.To...)
		}
		for _, peer := range peers {
			if peer.PodSelector != nil && len(m.pods(t, peer.PodSelector)) == 0 {
				t.Errorf("network policy %s names pods that do not exist: %v", p.Name, peer.PodSelector)
			}
		}
	}
	for _, set := range m.sets {
		if !limited[set.Name] {
			t.Errorf("no network policy for the pods of %s", set.Name)
		}
	}
}

func TestReferences(t *testing.T) {
	m := read(t)
	for _, set := range m.sets {
		volumes := map[string]bool{}
		for _, v := range set.Spec.Template.Spec.Volumes {
			volumes[v.Name] = true
		}
		for _, claim := range set.Spec.VolumeClaimTemplates {
			volumes[claim.Name] = true
		}
		for _, c := range set.Spec.Template.Spec.Containers {
			if !bytes.ContainsRune([]byte(c.Image), '/') || !bytes.ContainsRune([]byte(c.Image), ':') {
				t.Errorf("%s: image %s has no registry or no tag from kustomization.yaml", c.Name, c.Image)
			}
			for _, mount := range c.VolumeMounts {
				if !volumes[mount.Name] {
					t.Errorf("%s: no volume %s", c.Name, mount.Name)
				}
			}
			for _, variable := range c.Env {
				if variable.ValueFrom == nil || variable.ValueFrom.SecretKeyRef == nil {
					continue
				}
				ref := variable.ValueFrom.SecretKeyRef
				if !slices.ContainsFunc(m.secrets, func(s corev1.Secret) bool { return s.Name == ref.Name && s.StringData[ref.Key] != "" }) {
					t.Errorf("%s: no key %s in secret %s", c.Name, ref.Key, ref.Name)
				}
			}
			if len(c.Resources.Requests) == 0 || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("%s: resources %+v", c.Name, c.Resources)
			}
		}
	}
}

// TestPodSecurity evaluates the pods by the code of the admission controller, at the level that the namespace enforces.
func TestPodSecurity(t *testing.T) {
	m := read(t)
	level := api.Level(m.namespaces[0].Labels[api.EnforceLevelLabel])
	if level != api.LevelRestricted {
		t.Fatalf("the namespace enforces %q", level)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range m.sets {
		pod := set.Spec.Template
		for _, result := range evaluator.EvaluatePod(api.LevelVersion{Level: level, Version: api.LatestVersion()}, &pod.ObjectMeta, &pod.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s: %s", set.Name, result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
	}
}
