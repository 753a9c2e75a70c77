//! How operators, functions, aggregates and types are spelled, and what calls must look like.

use super::ast::{Aggregate, BinaryOp, Function, Type};

/// The fields of a date that `date_trunc` can cut at.
const TRUNC_UNITS: [&str; 8] = [
    "year", "quarter", "month", "week", "day", "hour", "minute", "second",
];

/// The fields of a date that `date_part` can read.
const PART_UNITS: [&str; 10] = [
    "year", "quarter", "month", "week", "day", "hour", "minute", "second", "dow", "doy",
];

impl BinaryOp {
    /// Every operator.
    pub const ALL: [BinaryOp; 12] = [
        BinaryOp::And,
        BinaryOp::Or,
        BinaryOp::Equal,
        BinaryOp::NotEqual,
        BinaryOp::Less,
        BinaryOp::LessOrEqual,
        BinaryOp::Greater,
        BinaryOp::GreaterOrEqual,
        BinaryOp::Add,
        BinaryOp::Subtract,
        BinaryOp::Multiply,
        BinaryOp::Divide,
    ];

    /// The operator in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            BinaryOp::And => "AND",
            BinaryOp::Or => "OR",
            BinaryOp::Equal => "=",
            BinaryOp::NotEqual => "<>",
            BinaryOp::Less => "<",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::Add => "+",
            BinaryOp::Subtract => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
        }
    }
}

impl Function {
    /// Every function.
    pub const ALL: [Function; 13] = [
        Function::Lower,
        Function::Upper,
        Function::Trim,
        Function::Substr,
        Function::Length,
        Function::Coalesce,
        Function::NullIf,
        Function::Abs,
        Function::Round,
        Function::Floor,
        Function::DateTrunc,
        Function::DatePart,
        Function::MakeDate,
    ];

    /// The function's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Function::Lower => "lower",
            Function::Upper => "upper",
            Function::Trim => "trim",
            Function::Substr => "substr",
            Function::Length => "length",
            Function::Coalesce => "coalesce",
            Function::NullIf => "nullif",
            Function::Abs => "abs",
            Function::Round => "round",
            Function::Floor => "floor",
            Function::DateTrunc => "date_trunc",
            Function::DatePart => "date_part",
            Function::MakeDate => "make_date",
        }
    }

    /// The function of that name, if it may cross the border.
    pub fn from_name(name: &str) -> Option<Function> {
        Function::ALL
            .into_iter()
            .find(|function| function.name() == name)
    }

    /// Whether the function takes `count` arguments.
    pub fn takes(self, count: usize) -> bool {
        match self {
            Function::Coalesce => count >= 1,
            Function::Substr => (2..=3).contains(&count),
            Function::Round => (1..=2).contains(&count),
            Function::NullIf | Function::DateTrunc | Function::DatePart => count == 2,
            Function::MakeDate => count == 3,
            _ => count == 1,
        }
    }

    /// The constants that may stand as the first argument; empty if anything may.
    pub fn units(self) -> &'static [&'static str] {
        match self {
            Function::DateTrunc => &TRUNC_UNITS,
            Function::DatePart => &PART_UNITS,
            _ => &[],
        }
    }
}

impl Aggregate {
    /// Every aggregate.
    pub const ALL: [Aggregate; 5] = [
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::Avg,
    ];

    /// The aggregate's name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Aggregate::Sum => "sum",
            Aggregate::Count => "count",
            Aggregate::Min => "min",
            Aggregate::Max => "max",
            Aggregate::Avg => "avg",
        }
    }

    /// The aggregate of that name, if it may cross the border.
    pub fn from_name(name: &str) -> Option<Aggregate> {
        Aggregate::ALL
            .into_iter()
            .find(|aggregate| aggregate.name() == name)
    }
}

impl Type {
    /// The types that take no digits, which is all but `DECIMAL`.
    pub(super) const PLAIN: [Type; 6] = [
        Type::Boolean,
        Type::BigInt,
        Type::Double,
        Type::Text,
        Type::Date,
        Type::Timestamp,
    ];

    /// The type's name in SQL, without digits.
    pub(super) fn name(self) -> &'static str {
        match self {
            Type::Boolean => "BOOLEAN",
            Type::BigInt => "BIGINT",
            Type::Double => "DOUBLE",
            Type::Decimal { .. } => "DECIMAL",
            Type::Text => "TEXT",
            Type::Date => "DATE",
            Type::Timestamp => "TIMESTAMP",
        }
    }
}
