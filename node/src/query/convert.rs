//! From the engine's expressions to the border grammar, where both mean exactly the same.
//!
//! What has no counterpart stays with the asker: `None` is always a safe answer, so every doubt
//! ends in it.

use arrow::datatypes::{DataType, Schema};
use chrono::{DateTime, Datelike, Days, NaiveDate};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{Case, Cast, InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr as Engine, Operator};
use jingwei_proto::border::{BinaryOp, Decimal, Expr, Function, Literal, Type};

use super::types;

/// The filter `expr` over a table with `schema` as a border expression; `None` if the border
/// grammar cannot say it.
pub fn filter(expr: &Engine, schema: &Schema) -> Option<Expr> {
    let converted = Converter { schema }.convert(expr)?;
    // As deep as it can come to lie among the others that it is joined to.
    let padded = (0..JOINING_DEPTH).fold(converted.clone(), |expr, _| Expr::Not(Box::new(expr)));
    padded.check_filter().ok()?;
    Some(converted)
}

/// Levels that joining a scan's filters by `AND` may take.
const JOINING_DEPTH: u32 = 6;

/// Filters that one scan can join within those levels.
pub const MAX_FILTERS: usize = 1 << JOINING_DEPTH;

struct Converter<'a> {
    schema: &'a Schema,
}

impl Converter<'_> {
    fn convert(&self, expr: &Engine) -> Option<Expr> {
        match expr {
            Engine::Alias(alias) => self.convert(&alias.expr),
            Engine::Column(column) => {
                self.schema.index_of(&column.name).ok()?;
                Some(Expr::column(&column.name))
            }
            Engine::Literal(value, _) => literal(value).map(Expr::Literal),
            Engine::BinaryExpr(binary) => self.binary(binary),
            Engine::Not(of) => Some(not(self.convert(of)?)),
            Engine::Negative(of) => self.negative(of),
            Engine::IsNull(of) => Some(Expr::IsNull {
                expr: self.boxed(of)?,
                negated: false,
            }),
            Engine::IsNotNull(of) => Some(Expr::IsNull {
                expr: self.boxed(of)?,
                negated: true,
            }),
            Engine::IsUnknown(of) => Some(Expr::IsNull {
                expr: self.boxed(of)?,
                negated: false,
            }),
            Engine::IsNotUnknown(of) => Some(Expr::IsNull {
                expr: self.boxed(of)?,
                negated: true,
            }),
            Engine::IsTrue(of) => Some(or(self.convert(of)?, false)),
            Engine::IsNotTrue(of) => Some(not(or(self.convert(of)?, false))),
            Engine::IsFalse(of) => Some(or(not(self.convert(of)?), false)),
            Engine::IsNotFalse(of) => Some(or(self.convert(of)?, true)),
            Engine::Between(between) => self.between(between),
            Engine::Like(like) => self.like(like),
            Engine::InList(list) => self.in_list(list),
            Engine::Case(case) => self.case(case),
            Engine::Cast(cast) => self.cast(cast),
            Engine::ScalarFunction(call) => self.call(call),
            _ => None,
        }
    }

    fn boxed(&self, expr: &Engine) -> Option<Box<Expr>> {
        self.convert(expr).map(Box::new)
    }

    fn binary(&self, binary: &BinaryExpr) -> Option<Expr> {
        let (left, right) = (self.convert(&binary.left)?, self.convert(&binary.right)?);
        match binary.op {
            Operator::IsNotDistinctFrom => same(left, right),
            Operator::IsDistinctFrom => same(left, right).map(not),
            op => Some(Expr::binary(operator(op)?, left, right)),
        }
    }

    fn negative(&self, of: &Engine) -> Option<Expr> {
        match self.convert(of)? {
            Expr::Literal(_) => None,
            converted => Some(Expr::Negate(Box::new(converted))),
        }
    }

    fn between(&self, between: &Between) -> Option<Expr> {
        let value = self.convert(&between.expr)?;
        let (low, high) = (self.convert(&between.low)?, self.convert(&between.high)?);
        let from = Expr::binary(BinaryOp::GreaterOrEqual, value.clone(), low);
        let to = Expr::binary(BinaryOp::LessOrEqual, value, high);
        let both = Expr::binary(BinaryOp::And, from, to);
        Some(if between.negated {
            Expr::Not(Box::new(both))
        } else {
            both
        })
    }

    fn like(&self, like: &Like) -> Option<Expr> {
        let plain = !like.case_insensitive && matches!(like.escape_char, None | Some('\\'));
        let Engine::Literal(pattern, _) = &*like.pattern else {
            return None;
        };
        let Some(Literal::Text(pattern)) = literal(pattern).filter(|_| plain) else {
            return None;
        };
        Some(Expr::Like {
            expr: self.boxed(&like.expr)?,
            pattern,
            negated: like.negated,
        })
    }

    fn in_list(&self, list: &InList) -> Option<Expr> {
        let constant = |expr: &Engine| match expr {
            Engine::Literal(value, _) => literal(value),
            _ => None,
        };
        Some(Expr::In {
            expr: self.boxed(&list.expr)?,
            list: list.list.iter().map(constant).collect::<Option<_>>()?,
            negated: list.negated,
        })
    }

    fn case(&self, case: &Case) -> Option<Expr> {
        let subject = match &case.expr {
            Some(subject) => Some(self.convert(subject)?),
            None => None,
        };
        let branch = |(when, then): &(Box<Engine>, Box<Engine>)| {
            let when = self.convert(when)?;
            let condition = match &subject {
                Some(subject) => Expr::binary(BinaryOp::Equal, subject.clone(), when),
                None => when,
            };
            Some((condition, self.convert(then)?))
        };
        let otherwise = match &case.else_expr {
            Some(otherwise) => Some(self.boxed(otherwise)?),
            None => None,
        };
        let branches = case
            .when_then_expr
            .iter()
            .map(branch)
            .collect::<Option<_>>()?;
        Some(Expr::Case {
            branches,
            otherwise,
        })
    }

    fn cast(&self, cast: &Cast) -> Option<Expr> {
        let to = match cast.field.data_type() {
            DataType::Boolean => Type::Boolean,
            DataType::Int64 => Type::BigInt,
            DataType::Float64 => Type::Double,
            DataType::Utf8 => Type::Text,
            DataType::Date32 => Type::Date,
            DataType::Decimal128(precision, scale) => Type::Decimal {
                precision: *precision,
                scale: u8::try_from(*scale).ok()?,
            },
            time if *time == types::timestamp() => Type::Timestamp,
            _ => return None,
        };
        Some(Expr::Cast {
            expr: self.boxed(&cast.expr)?,
            to,
        })
    }

    fn call(&self, call: &ScalarFunction) -> Option<Expr> {
        // The engine's own name, which is not always the one that people write.
        let function = match call.func.name() {
            "btrim" if call.args.len() == 1 => Function::Trim,
            "character_length" => Function::Length,
            name => Function::from_name(name)?,
        };
        let args = call
            .args
            .iter()
            .map(|arg| self.convert(arg))
            .collect::<Option<_>>()?;
        Some(Expr::Call { function, args })
    }
}

fn not(expr: Expr) -> Expr {
    Expr::Not(Box::new(expr))
}

/// `left IS NOT DISTINCT FROM right`, where one of them is a constant and so not null.
fn same(left: Expr, right: Expr) -> Option<Expr> {
    let constant = |expr: &Expr| matches!(expr, Expr::Literal(_));
    let known = constant(&left) || constant(&right);
    known.then(|| or(Expr::binary(BinaryOp::Equal, left, right), false))
}

/// `expr`, or `unknown` where it is null.
fn or(expr: Expr, unknown: bool) -> Expr {
    let unknown = Expr::Literal(Literal::Boolean(unknown));
    Expr::Call {
        function: Function::Coalesce,
        args: vec![expr, unknown],
    }
}

fn operator(op: Operator) -> Option<BinaryOp> {
    Some(match op {
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::Eq => BinaryOp::Equal,
        Operator::NotEq => BinaryOp::NotEqual,
        Operator::Lt => BinaryOp::Less,
        Operator::LtEq => BinaryOp::LessOrEqual,
        Operator::Gt => BinaryOp::Greater,
        Operator::GtEq => BinaryOp::GreaterOrEqual,
        Operator::Plus => BinaryOp::Add,
        Operator::Minus => BinaryOp::Subtract,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        _ => return None,
    })
}

/// A constant; typed nulls have no spelling, and what they would compute is known here anyway.
fn literal(value: &ScalarValue) -> Option<Literal> {
    Some(match value {
        ScalarValue::Boolean(Some(value)) => Literal::Boolean(*value),
        ScalarValue::Int8(Some(value)) => Literal::Integer((*value).into()),
        ScalarValue::Int16(Some(value)) => Literal::Integer((*value).into()),
        ScalarValue::Int32(Some(value)) => Literal::Integer((*value).into()),
        ScalarValue::Int64(Some(value)) => Literal::Integer(*value),
        ScalarValue::Float64(Some(value)) => Literal::Double(*value),
        ScalarValue::Utf8(Some(text))
        | ScalarValue::LargeUtf8(Some(text))
        | ScalarValue::Utf8View(Some(text)) => Literal::Text(text.clone()),
        ScalarValue::Date32(Some(days)) => Literal::Date(date(*days)?),
        ScalarValue::TimestampMicrosecond(Some(time), Some(zone)) if &**zone == "UTC" => {
            Literal::Timestamp(DateTime::from_timestamp_micros(*time)?)
        }
        ScalarValue::Decimal128(Some(unscaled), precision, scale) => Literal::Decimal(Decimal {
            unscaled: *unscaled,
            precision: *precision,
            scale: u8::try_from(*scale).ok()?,
        }),
        _ => return None,
    })
}

fn date(days: i32) -> Option<NaiveDate> {
    let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let distance = Days::new(days.unsigned_abs().into());
    let date = if days < 0 {
        epoch.checked_sub_days(distance)
    } else {
        epoch.checked_add_days(distance)
    };
    date.filter(|date| (1..=9999).contains(&date.year()))
}
