//! What the suites apply: backends that echo, a class, a Gateway, routes.

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

/// A Gateway `edge` of that class, which listens for HTTP on port 80 and takes routes of its own namespace.
pub const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: portreeve
  listeners:
  - {name: http, port: 80, protocol: HTTP}
---"#;

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
