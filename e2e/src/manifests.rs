//! What the suites apply: backends that echo, classes, Gateways, routes.

/// The host that [`route`] serves.
pub const HOST: &str = "echo.example";

/// A Deployment of `replicas` echo pods and the Service in front of them, both called `name`.
pub fn backend(name: &str, replicas: u32) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: registry.k8s.io/gateway-api/echo-basic:v1.6.0-dev.3
        imagePullPolicy: IfNotPresent
        env:
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
        # The backend ends at once when asked to; what is told of its end later than it must not meet a closed port.
        lifecycle: {{preStop: {{sleep: {{seconds: 3}}}}}}
        readinessProbe: {{httpGet: {{path: /health, port: 3000}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 8080, targetPort: 3000}}]
---"#
    )
}

/// The class.
pub const CLASS: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: portreeve}
spec: {controllerName: portreeve.dev/gateway-controller}
---"#;

/// A class called `name`, and EdgeParameters of the same name with this `spec.addressProvider`.
pub fn class_with(name: &str, provider: &str) -> String {
    format!(
        r#"
apiVersion: portreeve.dev/v1alpha1
kind: EdgeParameters
metadata: {{name: {name}}}
spec: {{addressProvider: {provider}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {name}}}
spec:
  controllerName: portreeve.dev/gateway-controller
  parametersRef: {{group: portreeve.dev, kind: EdgeParameters, name: {name}}}
---"#
    )
}

/// A Gateway `edge` of the class `portreeve`, which listens for HTTP on port 80.
pub fn edge() -> String {
    gateway("edge", "portreeve", &[("http", 80, "HTTP")])
}

/// A Gateway called `name` of a class, which has listeners of these names, ports and protocols and takes routes of its
/// own namespace.
pub fn gateway(name: &str, class: &str, listeners: &[(&str, u16, &str)]) -> String {
    let listeners: String = listeners
        .iter()
        .map(|(name, port, protocol)| format!("\n  - {{name: {name}, port: {port}, protocol: {protocol}}}"))
        .collect();
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: {class}
  listeners:{listeners}
---"#
    )
}

/// An HTTPRoute `echo` for [`HOST`] to these Services with their weights.
pub fn route(backends: &[(&str, u32)]) -> String {
    route_named("echo", HOST, backends)
}

/// An HTTPRoute called `name` for `host`.
pub fn route_named(name: &str, host: &str, backends: &[(&str, u32)]) -> String {
    let backends: String = backends
        .iter()
        .map(|(service, weight)| format!("\n    - {{name: {service}, port: 8080, weight: {weight}}}"))
        .collect();
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: edge}}]
  hostnames: [{host}]
  rules:
  - backendRefs:{backends}
---"#
    )
}
