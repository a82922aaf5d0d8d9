//! What is supported, as the conformance suite names it: one table, from which GatewayClasses publish and
//! docs/reference/gateway-api.md is made.
//!
//! A line here is a claim that tests hold: the suite runs the tests of every feature that is published.

use super::addresses::Provider;
use super::reader::{Definition, Reader};

/// Where the fields that a feature needs are defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// In the standard channel of the CRDs.
    Standard,
    /// In the experimental channel alone.
    Experimental,
}

/// A feature.
#[derive(Debug)]
pub struct Feature {
    /// Its name in the suite and in `status.supportedFeatures`.
    pub name: &'static str,
    /// The kind that must be installed: its plural.
    pub kind: &'static str,
    /// The channel that its fields need.
    pub channel: Channel,
}

const fn standard(name: &'static str, kind: &'static str) -> Feature {
    Feature { name, kind, channel: Channel::Standard }
}

/// A feature whose fields are those of the experimental channel.
const fn experimental(feature: Feature) -> Feature {
    Feature { channel: Channel::Experimental, ..feature }
}

/// A claim that not every address provider can meet.
const STATIC_ADDRESSES: &str = "GatewayStaticAddresses";

const GATEWAY: &str = "gateways";
const HTTP: &str = "httproutes";

/// All features of Gateway API v1.6.1 but those of meshes, sorted.
pub const FEATURES: &[Feature] = &[
    standard("BackendTLSPolicy", "backendtlspolicies"),
    standard("BackendTLSPolicySANValidation", "backendtlspolicies"),
    standard("GRPCRoute", "grpcroutes"),
    standard("GRPCRouteNamedRouteRule", "grpcroutes"),
    standard("Gateway", GATEWAY),
    standard("GatewayAddressEmpty", GATEWAY),
    standard("GatewayBackendClientCertificate", GATEWAY),
    standard("GatewayFrontendClientCertificateValidation", GATEWAY),
    standard("GatewayFrontendClientCertificateValidationInsecureFallback", GATEWAY),
    standard("GatewayHTTPListenerIsolation", GATEWAY),
    standard("GatewayHTTPSListenerDetectMisdirectedRequests", GATEWAY),
    standard("GatewayInfrastructurePropagation", GATEWAY),
    standard("GatewayPort8080", GATEWAY),
    standard(STATIC_ADDRESSES, GATEWAY),
    standard("HTTPRoute", HTTP),
    standard("HTTPRoute303RedirectStatusCode", HTTP),
    standard("HTTPRoute307RedirectStatusCode", HTTP),
    standard("HTTPRoute308RedirectStatusCode", HTTP),
    standard("HTTPRouteBackendProtocolH2C", HTTP),
    standard("HTTPRouteBackendProtocolWebSocket", HTTP),
    standard("HTTPRouteBackendRequestHeaderModification", HTTP),
    standard("HTTPRouteBackendTimeout", HTTP),
    standard("HTTPRouteCORS", HTTP),
    standard("HTTPRouteDestinationPortMatching", HTTP),
    standard("HTTPRouteHostRewrite", HTTP),
    standard("HTTPRouteMethodMatching", HTTP),
    standard("HTTPRouteNamedRouteRule", HTTP),
    standard("HTTPRouteParentRefPort", HTTP),
    standard("HTTPRoutePathRedirect", HTTP),
    standard("HTTPRoutePathRewrite", HTTP),
    standard("HTTPRoutePortRedirect", HTTP),
    standard("HTTPRouteQueryParamMatching", HTTP),
    standard("HTTPRouteRequestMirror", HTTP),
    standard("HTTPRouteRequestMultipleMirrors", HTTP),
    standard("HTTPRouteRequestPercentageMirror", HTTP),
    standard("HTTPRouteRequestTimeout", HTTP),
    standard("HTTPRouteResponseHeaderModification", HTTP),
    experimental(standard("HTTPRouteRetry", HTTP)),
    experimental(standard("HTTPRouteRetryBackendTimeout", HTTP)),
    experimental(standard("HTTPRouteRetryConnectionError", HTTP)),
    standard("HTTPRouteSchemeRedirect", HTTP),
    standard("ListenerSet", "listenersets"),
    standard("ReferenceGrant", "referencegrants"),
    standard("TCPRoute", "tcproutes"),
    standard("TLSRoute", "tlsroutes"),
    standard("TLSRouteModeMixed", "tlsroutes"),
    standard("TLSRouteModeTerminate", "tlsroutes"),
    standard("UDPRoute", "udproutes"),
];

/// The features that can be published here: those whose kinds and fields are installed. Without definitions, as without a cluster, nothing is missing.
pub(super) fn published(reader: &Reader<'_>, provider: &Provider) -> Vec<&'static str> {
    let is_met = |feature: &Feature| feature.name != STATIC_ADDRESSES || provider.gives_what_is_named();
    let definitions: Vec<_> = reader.definitions().collect();
    let met = FEATURES.iter().filter(|feature| is_met(feature));
    met.filter(|feature| is_installed(feature, &definitions)).map(|feature| feature.name).collect()
}

fn is_installed(feature: &Feature, definitions: &[Definition<'_>]) -> bool {
    let found = definitions.iter().find(|definition| definition.plural == feature.kind);
    match (feature.channel, found) {
        _ if definitions.is_empty() => true,
        (_, None) => false,
        (Channel::Standard, Some(_)) => true,
        (Channel::Experimental, Some(definition)) => definition.channel == Some("experimental"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;
    use crate::translate::Settings;
    use crate::translate::derived::Derived;

    #[test]
    fn features_are_sorted_and_named_once() {
        assert!(FEATURES.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn a_status_holds_them_all() {
        // Source: the CRD, `status.supportedFeatures` has at most 64 items.
        assert!(FEATURES.len() <= 64);
    }

    #[test]
    fn a_class_whose_provider_gives_no_named_addresses_does_not_say_so() {
        let (settings, snapshot, derived) = (Settings::default(), Snapshot::default(), Derived::default());
        let reader = Reader::new(&settings, &snapshot, &derived);
        assert!(!published(&reader, &Provider::Node).contains(&STATIC_ADDRESSES));
        assert!(published(&reader, &Provider::Pool([].into())).contains(&STATIC_ADDRESSES));
    }

    #[test]
    fn what_is_not_installed_is_not_published() {
        let installed = |name: &str, channel| {
            let feature = FEATURES.iter().find(|feature| feature.name == name).expect("a feature");
            let of = |plural| Definition { plural, version: Some("v1.6.1"), channel: Some(channel) };
            is_installed(feature, &[of("gateways"), of("httproutes")])
        };
        assert!(installed("HTTPRoute", "standard") && !installed("ListenerSet", "standard"));
        assert!(installed("HTTPRouteRetry", "experimental") && !installed("HTTPRouteRetry", "standard"));
        assert!(FEATURES.iter().all(|feature| is_installed(feature, &[])), "as without a cluster");
    }
}
