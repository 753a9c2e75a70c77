//! Second and third stop: questions up and down the levels, and across departments.

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::array_value_to_string;
use jingwei_registry::fault::Fault;

use super::client::Answer;
use super::registry::failed;
use super::tour::Tour;

/// The département of the vertical question.
pub const ASKER: &str = "fr.bre.35";

/// Its communes, from one national body, by their groupings, from another.
pub const VERTICAL: &str = "\
SELECT g.groupe_code, g.groupe_nom,
       count(*) AS communes,
       sum(c.population) AS population,
       sum(g.population_municipale) AS municipale,
       sum(g.population_totale) AS totale
FROM \"fr.communes\".communes AS c
JOIN \"fr.groups\".groupings AS g ON g.commune_code = c.code
WHERE c.departement = '35'
GROUP BY g.groupe_code, g.groupe_nom
ORDER BY totale DESC
LIMIT 5";

/// Two lists of one country's counties, side by side.
const HORIZONTAL: &str = "\
SELECT CASE WHEN s.code IS NULL THEN 'civil affairs only'
            WHEN m.code IS NULL THEN 'statistics only'
            ELSE 'both lists' END AS found_in,
       count(*) AS counties
FROM \"cn.mca\".counties AS m
FULL OUTER JOIN \"cn.stats\".counties AS s ON s.code = m.code
GROUP BY 1
ORDER BY counties DESC";

/// The two that answer the vertical question.
pub const PROVIDERS: [&str; 2] = ["fr.communes/communes@1", "fr.groups/groupings@1"];

/// A département asks two national bodies in one question.
pub async fn vertical(tour: &mut Tour<'_>) -> Result<Answer, Fault> {
    tour.screen
        .title("2  Vertical 条: a département asks two national bodies, in one question");
    let answer = ask(tour, ASKER, VERTICAL, false).await?;
    check_vertical(tour, &answer)?;
    tour.screen.aside(
        "Three published populations of one métropole: totale counts some people twice, municipale\n\
         counts each once, and of the first the source does not say what it counts.",
    );
    Ok(answer)
}

/// Asks, and shows question and answer.
pub async fn ask(tour: &Tour<'_>, agency: &str, sql: &str, save: bool) -> Result<Answer, Fault> {
    tour.screen.question(agency, sql);
    let answer = tour
        .federation
        .client(agency)?
        .ask(agency, sql, save)
        .await?;
    tour.screen.answer(agency, &answer)?;
    tour.screen.gap();
    Ok(answer)
}

/// Checks what is known of the vertical question's answer, and who gave it.
pub fn check_vertical(tour: &mut Tour<'_>, answer: &Answer) -> Result<(), Fault> {
    tour.check(
        "two remote agencies answered",
        &providers(answer),
        &PROVIDERS.map(str::to_owned).to_vec(),
    );
    let rennes = [
        "243500139",
        "Rennes Métropole",
        "43",
        "480178",
        "473973",
        "483199",
    ];
    tour.check(
        "Rennes Métropole has 43 communes and its three populations",
        &row(&answer.table, 0)?,
        &rennes.map(str::to_owned).to_vec(),
    );
    Ok(())
}

/// A department asks another one of its own level, and sets its own table beside the answer.
pub async fn horizontal(tour: &mut Tour<'_>) -> Result<(), Fault> {
    tour.screen
        .title("3  Horizontal 块: two departments keep a list each of the same counties");
    let answer = ask(tour, "cn.mca", HORIZONTAL, false).await?;
    let expected = [
        ("both lists", 2_826),
        ("statistics only", 152),
        ("civil affairs only", 20),
    ];
    tour.check(
        "2,826 codes in both lists, 152 only there, 20 only here",
        &counts(&answer.table)?,
        &expected
            .map(|(found_in, counties)| (found_in.to_owned(), counties))
            .to_vec(),
    );
    tour.check(
        "only the other's table was asked for",
        &providers(&answer),
        &vec!["cn.stats/counties@1".to_owned()],
    );
    Ok(())
}

/// The versions that answered, in order.
fn providers(answer: &Answer) -> Vec<String> {
    let mut versions: Vec<String> = answer
        .done
        .exchanges
        .iter()
        .map(|exchange| exchange.version.clone())
        .collect();
    versions.sort();
    versions
}

/// A row as text.
fn row(table: &RecordBatch, row: usize) -> Result<Vec<String>, Fault> {
    if row >= table.num_rows() {
        return Ok(Vec::new());
    }
    let cells = table
        .columns()
        .iter()
        .map(|column| array_value_to_string(column, row));
    cells.collect::<Result<_, _>>().map_err(failed)
}

/// A table of texts and how often.
fn counts(table: &RecordBatch) -> Result<Vec<(String, i64)>, Fault> {
    let counted = cast(table.column(1), &DataType::Int64).map_err(failed)?;
    let counted = counted.as_primitive::<Int64Type>();
    (0..table.num_rows())
        .map(|row| {
            Ok((
                array_value_to_string(table.column(0), row).map_err(failed)?,
                counted.value(row),
            ))
        })
        .collect()
}
