//! The OpenAPI document, made from the handlers.

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Object, Schema, SchemaType};
use utoipa::{OpenApi, PartialSchema, ToSchema};

use super::jobs::{DetectorName, DispositionName};
use super::problem::ProblemBody;
use super::reports::{Format, Lang};
use crate::serve::store::WebhookBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Veriscope",
        description = "Says for every stretch of time in a video, a sound or a picture how likely it \
            is that a face was swapped, a voice was cloned, or a label saying \"made by AI\" was taken \
            off. Errors are application/problem+json (RFC 9457) with a stable `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(ProblemBody, DetectorName, DispositionName, Format, Lang, WebhookBody))
)]
pub struct Api;

/// Stands for the report's own schema, which is put in its place.
pub struct ReportSchema;

impl PartialSchema for ReportSchema {
    fn schema() -> RefOr<Schema> {
        Object::new().into()
    }
}

impl ToSchema for ReportSchema {
    fn name() -> std::borrow::Cow<'static, str> {
        "Report".into()
    }
}

/// Bytes that are not JSON: OpenAPI 3.1 gives them no schema, the content type says what they are.
pub struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        Object::with_type(SchemaType::AnyValue).into()
    }
}

impl ToSchema for Binary {}

/// The document as it is served: with the report's schema, how keys are given, the webhook, and the
/// problems that any request may be answered with.
pub fn document(api: &utoipa::openapi::OpenApi) -> Result<String, serde_json::Error> {
    let mut api = serde_json::to_value(api)?;
    let schemas = &mut api["components"]["schemas"];
    for (name, schema) in report_schemas()? {
        schemas[name] = schema;
    }
    api["components"]["securitySchemes"] = json!({
        "key": { "type": "http", "scheme": "bearer" },
        "session": { "type": "apiKey", "in": "cookie", "name": super::auth::COOKIE_NAME }
    });
    api["webhooks"] = json!({
        "job": {
            "post": {
                "summary": "A job has ended, or was decided",
                "description": "Sent to the tenant's webhook at least once, until it answers 2xx; `id` is \
                    the same each time. `Veriscope-Signature: t=<unix seconds>,v1=<hex>` is \
                    HMAC-SHA256 over `<t>.<body>`.",
                "requestBody": {
                    "content": {
                        "application/json": { "schema": { "$ref": "#/components/schemas/WebhookBody" } }
                    }
                },
                "responses": { "2XX": { "description": "Received" } }
            }
        }
    });
    let problem = json!({
        "description": "Not done; `code` says why",
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } }
        }
    });
    let paths = api["paths"].as_object_mut().into_iter().flat_map(Map::iter_mut);
    let operations = paths.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten());
    for (_, operation) in operations.filter(|(_, operation)| operation["responses"].is_object()) {
        let responses = &mut operation["responses"];
        if let Some(responses) = responses.as_object_mut() {
            for (status, response) in responses.iter_mut() {
                if status.starts_with('4') || status.starts_with('5') {
                    response["content"] = problem["content"].clone();
                }
            }
        }
        responses["default"] = problem.clone();
        if operation.get("security").is_none() {
            operation["security"] = json!([{ "key": [] }, { "session": [] }]);
        }
    }
    serde_json::to_string(&api)
}

/// The published schema of reports as components: its definitions beside it.
fn report_schemas() -> Result<Vec<(String, Value)>, serde_json::Error> {
    // References point into the document that holds them.
    let text = crate::report::SCHEMA.replace("#/$defs/", "#/components/schemas/Report.");
    let mut schema: Value = serde_json::from_str(&text)?;
    let mut all = Vec::new();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("$schema");
        schema.remove("$id");
        if let Some(Value::Object(definitions)) = schema.remove("$defs") {
            all.extend(definitions.into_iter().map(|(name, s)| (format!("Report.{name}"), s)));
        }
    }
    all.push(("Report".into(), schema));
    Ok(all)
}
